"""The increments as users see them: requested, read, cancelled, retried.

The worker's side (claim, renew, end) is in `storage.work.leases`. Lists of increments are in `storage.work.reports`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from storage.database import rows
from storage.database.tables import batches as batches_table
from storage.database.tables import increments, models
from storage.domain import (
    UNFINISHED,
    ClassCount,
    Edit,
    Increment,
    IncrementStatus,
    Json,
    KnownClasses,
    Model,
    Promotion,
    Split,
    Unshown,
    Version,
    new_id,
    now,
)
from storage.errors import (
    IncrementNotCancellable,
    IncrementNotFound,
    IncrementNotRetryable,
)
from storage.history import versions
from storage.material import batches, images, references
from storage.requests import idempotency
from storage.requests.idempotency import Asked
from storage.work import events
from storage.work.admission import check_classes


def request(
    connection: Connection,
    *,
    model: Model,
    batch_id: str,
    strategy: str,
    recipe: Mapping[str, Any],
    rehearses: bool,
    promote: Promotion,
    known_classes: KnownClasses,
    idempotency_key: str | None = None,
    asked: Asked | None = None,
) -> Increment:
    """Queue one update of a model from a closed batch.

    The caller holds the model's lock (`models.lock`). So its increments arrive in the order of the commits, and two
    requests cannot bring the same class. `answered_before` compares ``asked`` with that of later requests. Raises
    `BatchClosed` and the errors of `check_classes`.
    """
    batch = batches.close(connection, batch_id)
    counts = as_known(connection, model, batch.classes)
    known, stored = coming_classes(connection, model), stored_classes(connection, model)
    check_classes(
        batch=counts,
        known=known,
        policy=known_classes,
        has_memory=rehearses,
        stored=stored,
        duplicate_of=earlier_increment(connection, model, batch.fingerprint),
        names=model.names,
    )
    increment_id = new_id()
    connection.execute(
        insert(increments).values(
            id=increment_id,
            model_id=model.id,
            batch_id=batch_id,
            status=IncrementStatus.QUEUED,
            strategy=strategy,
            recipe=dict(recipe),
            promote=promote,
            known_classes=known_classes,
            idempotency_key=idempotency_key,
            asked=idempotency.fingerprint(asked) if asked is not None else None,
            unshown=_unshown(counts, known=known, stored=stored),
            created_at=now(),
        )
    )
    events.add_status(connection, increment_id, IncrementStatus.QUEUED)
    return get(connection, increment_id)


def answered_before(
    connection: Connection, *, model: Model, idempotency_key: str | None, asked: Asked
) -> Increment | None:
    """The increment that an earlier request with this key made, if any.

    Raises `IdempotencyMismatch` if the earlier request was different. Rows of earlier releases have no fingerprint of
    the request, so only "archive" or "batch" of ``asked`` is compared with them.
    """
    if idempotency_key is None:
        return None
    query = (
        select(increments)
        .where(increments.c.model_id == model.id)
        .where(increments.c.idempotency_key == idempotency_key)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        # The key may belong to a request of another kind: then this raises.
        idempotency.recall(connection, model, key=idempotency_key, asked=asked)
        return None
    increment = rows.increment(row)
    if increment.asked is not None:
        same = increment.asked == idempotency.fingerprint(asked)
    elif asked["batch"] is not None:
        same = increment.batch_id == asked["batch"]
    else:
        same = batches.get(connection, increment.batch).fingerprint == asked["archive"]
    if not same:
        raise idempotency.mismatch(idempotency_key, increment=increment.id)
    return increment


def has_key(connection: Connection, model: Model, idempotency_key: str | None) -> bool:
    """Whether an earlier request for an increment had this key."""
    query = select(increments.c.id).where(increments.c.model_id == model.id)
    return connection.scalar(query.where(increments.c.idempotency_key == idempotency_key)) is not None


def get(connection: Connection, increment_id: str) -> Increment:
    """The increment of that id; raises `IncrementNotFound`."""
    row = connection.execute(select(increments).where(increments.c.id == increment_id)).mappings().one_or_none()
    if row is None:
        raise not_found(increment_id)
    return rows.increment(row)


def not_found(increment_id: str) -> IncrementNotFound:
    """What to raise where there is no increment of that id."""
    return IncrementNotFound(f"There is no increment {increment_id!r}.")


def of_ids(connection: Connection, ids: Collection[str]) -> list[Increment]:
    """The increments of these ids that are there."""
    if not ids:
        return []
    found = connection.execute(select(increments).where(increments.c.id.in_(ids))).mappings()
    return [rows.increment(row) for row in found]


def cancel(connection: Connection, increment_id: str) -> Increment:
    """Stop an increment: at once if it is queued, within seconds if it runs; raises `IncrementNotCancellable`."""
    increment = _lock(connection, increment_id)
    if increment.status.is_final:
        raise IncrementNotCancellable(f"Increment {increment_id} is {increment.status} already, nothing to stop.")
    values: dict[str, Any] = {"cancel_requested": True}
    if increment.status is IncrementStatus.QUEUED:
        values |= {"status": IncrementStatus.CANCELLED, "finished_at": now()}
        events.add_status(connection, increment_id, IncrementStatus.CANCELLED)
    connection.execute(update(increments).where(increments.c.id == increment_id).values(values))
    return get(connection, increment_id)


def retry(connection: Connection, increment_id: str, *, model: Model, rehearses: bool) -> Increment:
    """Queue a failed or cancelled increment once more, in its old place in the queue.

    It starts from the beginning: its checkpoint, which may be the cause of the failure, is released. Raises
    `IncrementNotRetryable` and the errors of `check_classes`.
    """
    increment = get(connection, increment_id)
    if increment.status not in {IncrementStatus.FAILED, IncrementStatus.CANCELLED}:
        raise IncrementNotRetryable(
            f"Increment {increment_id} is {increment.status}; only failed and cancelled ones can be tried again."
        )
    unshown = _checked_again(connection, increment, model, rehearses=rehearses)
    if increment.checkpoint is not None:  # no sweep has released it yet
        references.release(connection, [increment.checkpoint.sha256])
    connection.execute(
        update(increments)
        .where(increments.c.id == increment_id)
        .values(
            status=IncrementStatus.QUEUED,
            crashes=0,
            checkpoint=None,
            cancel_requested=False,
            error=None,
            progress=None,
            unshown=unshown,
            finished_at=None,
        )
    )
    events.add_status(connection, increment_id, IncrementStatus.QUEUED)
    return get(connection, increment_id)


def _checked_again(connection: Connection, increment: Increment, model: Model, *, rehearses: bool) -> Json | None:
    """The old classes that it does not show, as they are now; None for an edit, which is checked when it is claimed."""
    if increment.edit is not None:
        return None
    batch = as_known(connection, model, batches.get(connection, increment.batch).classes)
    known, stored = coming_classes(connection, model), stored_classes(connection, model)
    check_classes(
        batch=batch,
        known=known,
        policy=increment.known_classes,
        has_memory=rehearses,
        stored=stored,
        names=model.names,
    )
    return _unshown(batch, known=known, stored=stored)


def as_known(connection: Connection, model: Model, counts: Sequence[ClassCount]) -> list[ClassCount]:
    """Class counts of a batch, where those of classes that an edit merged are of the class they were merged into."""
    merged = versions.get(connection, model, model.head).merged if model.head is not None else {}
    return [replace(count, label=merged.get(count.label, count.label)) for count in counts]


def coming_classes(connection: Connection, model: Model) -> frozenset[str]:
    """The classes that a new increment will find: those of the head and of unfinished increments."""
    known = versions.get(connection, model, model.head).classes if model.head is not None else ()
    return _queued_classes(connection, model) | set(known)


def stored_classes(connection: Connection, model: Model) -> frozenset[str]:
    """The classes that will have stored training images (exemplars or all) by then, as far as can be known now."""
    line = versions.lineage(connection, model, model.head)
    return _queued_classes(connection, model) | taught_classes(connection, line)


def taught_classes(connection: Connection, line: Sequence[Version]) -> frozenset[str]:
    """The classes that still have stored training images from the increments that made these versions."""
    came_from = select(increments.c.batch_id).where(increments.c.id.in_([version.increment_id for version in line]))
    batch_ids = [batch_id for batch_id in connection.scalars(came_from) if batch_id is not None]
    merged = line[-1].merged if line else {}
    taught = images.labels_of(connection, batch_ids, split=Split.TRAIN)
    return frozenset(merged.get(label, label) for label in taught)


def _unshown(batch: Sequence[ClassCount], *, known: frozenset[str], stored: frozenset[str]) -> Json:
    """An `Unshown` as the JSON object that is stored."""
    unsent = sorted(known - {count.label for count in batch})
    return asdict(Unshown(len(known), tuple(unsent), tuple(label for label in unsent if label not in stored)))


def _queued_classes(connection: Connection, model: Model) -> frozenset[str]:
    pending = (
        select(batches_table.c.classes)
        .join(increments, increments.c.batch_id == batches_table.c.id)
        .where(increments.c.model_id == model.id)
        .where(increments.c.status.in_(UNFINISHED))
    )
    edits = select(increments.c.edit).where(increments.c.model_id == model.id, increments.c.edit.is_not(None))
    made = [Edit.of(edit).made for edit in connection.scalars(edits.where(increments.c.status.in_(UNFINISHED)))]
    return frozenset(count["label"] for classes in connection.scalars(pending) for count in classes).union(*made)


def earlier_increment(connection: Connection, model: Model, fingerprint: str | None) -> str | None:
    """Id of the model's first increment from the same archive, if any."""
    if fingerprint is None:
        return None
    query = (
        select(increments.c.id)
        .join(batches_table, increments.c.batch_id == batches_table.c.id)
        .where(batches_table.c.model_id == model.id)
        .where(batches_table.c.fingerprint == fingerprint)
        .order_by(increments.c.arrival)
        .limit(1)
    )
    found = connection.scalar(query)
    return str(found) if found is not None else None


def _lock(connection: Connection, increment_id: str) -> Increment:
    query = select(increments).where(increments.c.id == increment_id).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return rows.increment(row) if row is not None else get(connection, increment_id)


def counts(connection: Connection) -> dict[IncrementStatus, int]:
    """Increments by state; states without any are left out."""
    query = select(increments.c.status, func.count()).group_by(increments.c.status)
    return {IncrementStatus(status): count for status, count in connection.execute(query)}


def speeds(connection: Connection) -> dict[str, float]:
    """The training speed that each running increment last reported, in images per second, by name of the model."""
    query = (
        select(models.c.name, increments.c.progress)
        .join(models, models.c.id == increments.c.model_id)
        .where(increments.c.status == IncrementStatus.RUNNING)
        .where(increments.c.progress.is_not(None))
    )
    found = {name: (progress or {}).get("images_per_second") for name, progress in connection.execute(query)}
    return {name: float(speed) for name, speed in found.items() if speed is not None}
