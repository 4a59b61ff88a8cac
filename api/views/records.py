"""From the records of `storage.domain` to the answers of `api.schemas`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from api.schemas.batches import BatchOut, ClassCountOut, IgnoredOut, RejectOut, StoredImageOut
from api.schemas.edits import EditOut, MergeOut
from api.schemas.increments import AttemptOut, IncrementOut, ProgressOut
from api.schemas.models import ModelOut
from api.schemas.predictions import PredictionRecordOut, RankedOut
from api.schemas.versions import CurrentOut, FileOut, PromotionOut, Summary, VersionOut
from api.views import notices
from storage.domain import (
    Batch,
    Edit,
    Image,
    IncrementReport,
    Model,
    Names,
    Prediction,
    PromotionRecord,
    Reject,
    Version,
)
from storage.history import metrics, models, versions
from storage.material import batches, rejects


def model(connection: Connection, record: Model) -> ModelOut:
    """A model with the classes of its head."""
    return model_list(connection, [record])[0]


def model_list(connection: Connection, records: Sequence[Model]) -> list[ModelOut]:
    """Models with the classes of their heads."""
    classes = versions.classes_of_heads(connection, records)
    return [_model(record, classes.get(record.id, ())) for record in records]


def _model(record: Model, classes: Sequence[str]) -> ModelOut:
    memory = record.memory
    shown = (
        {"per_class": memory.per_class}
        if memory is not None and memory.per_class is not None
        else {"total": memory.total}
        if memory is not None
        else None
    )
    told = {"memory": shown, "notices": notices.of_model(record), "classes": list(record.names.all(classes))}
    fields = {name: value for name, value in _fields(record).items() if name != "names"}
    return ModelOut.model_validate(fields | told)


def batch(connection: Connection, record: Batch) -> BatchOut:
    """What is in a batch."""
    return batch_list(connection, models.by_id(connection, record.model_id), [record])[0]


def batch_list(connection: Connection, of: Model, found: Sequence[Batch]) -> list[BatchOut]:
    """What is in some batches of a model."""
    bad = rejects.first(connection, [record.id for record in found if record.reject_count])
    learned = batches.increments_of(connection, [record.id for record in found])
    return [_batch(of.names.batch(record), of.name, bad.get(record.id, ()), learned.get(record.id)) for record in found]


def _batch(record: Batch, model_name: str, bad: Sequence[Reject], increment_id: str | None) -> BatchOut:
    return BatchOut(
        id=record.id,
        model=model_name,
        status=record.status,
        classes=[ClassCountOut.model_validate(count) for count in record.classes],
        images=sum(count.images for count in record.classes),
        rejects=_rejects(bad),
        reject_count=record.reject_count,
        ignored=[IgnoredOut.model_validate(group) for group in record.ignored],
        notes=list(record.notes),
        digest=record.digest,
        increment_id=increment_id,
        created_at=record.created_at,
    )


def stored_image(of: Model, image: Image) -> StoredImageOut:
    """A stored image, without its file."""
    return StoredImageOut(
        id=image.id,
        batch_id=image.batch_id,
        label=of.names.name(image.label),
        filename=image.filename,
        digest=image.digest,
        bytes=image.size,
        split=image.split,
    )


def increment(report: IncrementReport) -> IncrementOut:
    """An increment with its attempts, the rejects of its batch, and notices."""
    record = report.increment
    return IncrementOut.model_validate(
        _fields(record)
        | {
            "model": report.model,
            "edit": _edit(record.edit, report.names),
            "progress": ProgressOut(**record.progress) if record.progress is not None else None,
            "notices": notices.of_increment(report),
            "rejects": _rejects(report.rejects),
            "reject_count": report.reject_count,
            "attempts": [AttemptOut.model_validate(attempt) for attempt in report.attempts],
            "seconds": dict(report.seconds),
        }
    )


def _edit(edit: Edit | None, names: Names) -> EditOut | None:
    if edit is None:
        return None
    merges = [MergeOut(labels=list(names.all(one.labels)), into=names.name(one.into)) for one in edit.merge]
    return EditOut(drop=list(names.all(edit.drop)), merge=merges)


def version_list(connection: Connection, of: Model, records: Sequence[Version]) -> list[VersionOut]:
    """Versions with the headline of their metrics."""
    documents = metrics.of_versions(connection, records)
    return [
        _version(of, of.names.version(record), document) for record, document in zip(records, documents, strict=True)
    ]


def current(record: Model) -> CurrentOut:
    """The version in service and the one before."""
    return CurrentOut(
        model=record.name, version=record.current, previous=record.previous, revision=record.current_revision
    )


def promotion(record: PromotionRecord) -> PromotionOut:
    """A promotion on record."""
    return PromotionOut(
        version=record.version,
        previous=record.previous,
        revision=record.revision,
        key=record.key_name,
        increment_id=record.increment_id,
        reason=record.reason,
        created_at=record.created_at,
    )


def prediction(record: Prediction, model_name: str, *, kept: Sequence[int]) -> PredictionRecordOut:
    """A prediction record; ``kept`` are the positions of the images that are kept."""
    return PredictionRecordOut(
        id=record.id,
        model=model_name,
        version=record.version,
        predictions=[ranked(one) for one in record.predictions],
        digests=list(record.digests) if record.digests is not None else None,
        reference=record.reference,
        kept=list(kept),
        created_at=record.created_at,
    )


def ranked(pairs: Iterable[tuple[str, float]]) -> list[RankedOut]:
    """Labels and probabilities, best first."""
    return [RankedOut(label=label, probability=probability) for label, probability in pairs]


def _rejects(found: Sequence[Reject]) -> list[RejectOut]:
    return [RejectOut.model_validate(reject) for reject in found]


def _version(of: Model, record: Version, document: Mapping[str, Any]) -> VersionOut:
    return VersionOut(
        **{
            name: value
            for name, value in _fields(record).items()
            if name not in {"model_id", "number", "deleted_at", "files", "tasks", "seconds", "edit", "merged"}
        },
        model=of.name,
        version=record.number,
        task=record.task,
        classes=list(record.classes),
        tasks=[list(task) for task in record.tasks],
        files={name: FileOut.model_validate(file) for name, file in record.files.items()},
        seconds=dict(record.seconds),
        edit=_edit(Edit.of(record.edit), of.names) if record.edit is not None else None,
        current=of.current == record.number,
        head=of.head == record.number,
        summary={
            form: Summary(average_accuracy=document[form]["average_accuracy"], forgetting=document[form]["forgetting"])
            for form in ("tag", "taw")
        },
    )


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
