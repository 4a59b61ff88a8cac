"""From an upload to a queued increment: checked first, stored then, committed last."""

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from api.admission.fitness import rehearses
from api.admission.options import IncrementOptions
from api.bodies.uploads import Upload
from api.service import Service
from storage.archives import reading
from storage.archives.bad_share import check_share
from storage.archives.reading import ArchiveIndex, ArchiveLimits
from storage.domain import Batch, ClassCount, Increment, Model
from storage.errors import JustDeleted
from storage.history import classes, models
from storage.material import batches, references
from storage.requests import audit
from storage.requests.idempotency import Asked
from storage.work import increments
from storage.work.admission import check_classes


def from_archive(service: Service, name: str, upload: Upload, wanted: IncrementOptions) -> tuple[Increment, bool]:
    """Queue an increment from an uploaded archive; returns it, and whether it is new (not a repeated request).

    All checks run before the archive is stored. They run again in the transaction that queues the increment, and only
    this second result counts.
    """
    asked = wanted.of(archive=upload.sha256)
    with service.database.read() as connection:
        model = models.get(connection, name)
        if (earlier := _earlier(connection, model, wanted, asked)) is not None:
            return earlier, False
        strategy, _ = wanted.recipe_for(connection, model)
        index = index_of(service, upload)
        known = increments.coming_classes(connection, model)
        check_classes(
            batch=increments.as_known(connection, model, _held(model, index)[0]),
            known=known,
            policy=wanted.known_classes,
            has_memory=rehearses(model, strategy, known=known),
            stored=increments.stored_classes(connection, model),
            duplicate_of=increments.earlier_increment(connection, model, upload.sha256),
            names=model.names,
        )
    store(service, upload)
    with service.database.write() as connection:
        model = models.lock(connection, name)
        if (earlier := _earlier(connection, model, wanted, asked)) is not None:
            return earlier, False
        batch = add_batch(service, connection, model, upload, index)
        return _request(connection, model, batch.id, wanted, asked), True


def from_batch(service: Service, name: str, batch_id: str, wanted: IncrementOptions) -> tuple[Increment, bool]:
    """Queue an increment from a batch that was collected before; returns it, and whether it is new."""
    asked = wanted.of(batch=batch_id)
    with service.database.write() as connection:
        model = models.lock(connection, name)
        if (earlier := _earlier(connection, model, wanted, asked)) is not None:
            return earlier, False
        batch = batches.get_of_model(connection, model, batch_id)
        return _request(connection, model, batch.id, wanted, asked), True


def index_of(service: Service, upload: Upload) -> ArchiveIndex:
    """List an archive's contents by the names in it.

    Raises `BatchInvalid` for too many bad files, as ingestion would, and the errors of `reading.scan`.
    """
    index = reading.scan(upload.path, limits=ArchiveLimits.of(service.settings))
    check_share(index.rejects, images=len(index.members), limit=service.settings.max_bad_share)
    return index


def store(service: Service, upload: Upload) -> None:
    """Move an upload into the blob store, and wait until it is on disk."""
    service.blobs.put_file(upload.path, sha256=upload.sha256)
    service.blobs.sync()


def add_batch(service: Service, connection: Connection, model: Model, upload: Upload, index: ArchiveIndex) -> Batch:
    """Write a closed batch that refers to the stored archive; raises `JustDeleted` if that was deleted just before.

    Also raises `ClassNameTaken`.
    """
    if references.keep(connection, {upload.sha256}, exists=service.blobs.exists):
        raise JustDeleted("The same archive was being deleted while you sent it: send it again.")
    counts, labels = _held(model, index)
    return batches.create(
        connection,
        model_id=model.id,
        archive=upload.sha256,
        archive_kind=index.kind,
        classes=counts,
        labels=labels,
        rejects=index.rejects,
        ignored=index.ignored,
        notes=index.notes,
    )


def _held(model: Model, index: ArchiveIndex) -> tuple[list[ClassCount], Mapping[str, str]]:
    """The class counts of an archive under the labels of the classes, and the labels that are not what it calls them.

    Raises `ClassNameTaken`.
    """
    labels = classes.labels_of(model, [count.label for count in index.classes])
    return [replace(count, label=labels.get(count.label, count.label)) for count in index.classes], labels


def _earlier(connection: Connection, model: Model, wanted: IncrementOptions, asked: Asked) -> Increment | None:
    return increments.answered_before(connection, model=model, idempotency_key=wanted.idempotency_key, asked=asked)


def _request(connection: Connection, model: Model, batch_id: str, wanted: IncrementOptions, asked: Asked) -> Increment:
    strategy, recipe = wanted.recipe_for(connection, model)
    increment = increments.request(
        connection,
        model=model,
        batch_id=batch_id,
        strategy=strategy,
        recipe=recipe,
        rehearses=rehearses(model, strategy, known=increments.coming_classes(connection, model)),
        promote=wanted.promote,
        known_classes=wanted.known_classes,
        idempotency_key=wanted.idempotency_key,
        asked=asked,
    )
    audit.record_change(connection, made={"increment": increment.id, "batch": batch_id, "strategy": strategy})
    return increment
