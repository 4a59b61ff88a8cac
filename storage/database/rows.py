"""Conversion of table rows to the frozen records of `storage.domain`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping

from storage.database.tables import increments
from storage.domain import (
    Attempt,
    AuditEntry,
    Batch,
    BatchStatus,
    ClassCount,
    Edit,
    Event,
    Export,
    Ignored,
    Image,
    Increment,
    IncrementReport,
    IncrementStatus,
    KeepPredictions,
    KeptImage,
    Key,
    KnownClasses,
    Memory,
    Model,
    Names,
    Prediction,
    Promotion,
    PromotionRecord,
    Reject,
    Relabel,
    Retention,
    Scope,
    Split,
    StoredCheckpoint,
    StoredFile,
    Unshown,
    Version,
)


def model(row: RowMapping) -> Model:
    """A row of ``models``."""
    choices = {
        "retention": Retention(row["retention"]),
        "keep_predictions": KeepPredictions(row["keep_predictions"]),
    }
    return Model(**{**row, **choices, "memory": _memory(row), "names": _names(row)})


def batch(row: RowMapping) -> Batch:
    """A row of ``batches``."""
    return Batch(
        **{
            **row,
            "status": BatchStatus(row["status"]),
            "classes": tuple(ClassCount(**count) for count in row["classes"]),
            "ignored": tuple(Ignored(**group | {"files": tuple(group["files"])}) for group in row["ignored"] or ()),
            "notes": tuple(row["notes"] or ()),
            "labels": row["labels"] or {},
        }
    )


def reject(row: RowMapping) -> Reject:
    """A row of ``rejects``."""
    return Reject(file=row["file"], reason=row["reason"])


def relabel(row: RowMapping) -> Relabel:
    """A row of ``relabels``."""
    told = {name: row[name] for name in Relabel.__dataclass_fields__}
    return Relabel(**{**told, "split": _split(row), "versions": tuple(row["versions"])})


def image(row: RowMapping) -> Image:
    """A row of ``images``."""
    return Image(**{**row, "split": _split(row)})


def _split(row: RowMapping) -> Split | None:
    return Split(row["split"]) if row["split"] is not None else None


def increment(row: RowMapping) -> Increment:
    """A row of ``increments``."""
    checkpoint = StoredCheckpoint(**row["checkpoint"]) if row["checkpoint"] is not None else None
    unshown = row["unshown"]
    return Increment(
        **{
            **row,
            "checkpoint": checkpoint,
            "unshown": Unshown(unshown["known"], tuple(unshown["unsent"]), tuple(unshown["unstored"]))
            if unshown is not None
            else None,
            "edit": Edit.of(row["edit"]) if row["edit"] is not None else None,
            "status": IncrementStatus(row["status"]),
            "promote": Promotion(row["promote"]),
            "known_classes": KnownClasses(row["known_classes"]),
        }
    )


def increment_report(row: RowMapping) -> IncrementReport:
    """A row of ``increments`` joined with columns of its model, its batch and its version."""
    own: Any = {name: row[name] for name in increments.c.keys()}  # noqa: SIM118
    return IncrementReport(
        increment(own),
        model=row["model"],
        memory=_memory(row),
        names=_names(row),
        reject_count=row["reject_count"] or 0,
        seconds=row["seconds"] or {},
    )


def _names(row: RowMapping) -> Names:
    return Names(row["names"] or {})


def _memory(row: RowMapping) -> Memory | None:
    return Memory(**row["memory"]) if row["memory"] is not None else None


def attempt(row: RowMapping) -> Attempt:
    """A row of ``attempts``."""
    return Attempt(**row)


def event(row: RowMapping) -> Event:
    """A row of ``events``."""
    return Event(**row)


def version(row: RowMapping) -> Version:
    """A row of ``versions``."""
    return Version(
        **{
            **row,
            "tasks": tuple(tuple(task) for task in row["tasks"]),
            "merged": row["merged"] or {},
            "files": {name: StoredFile(**file) for name, file in row["files"].items()},
        }
    )


def export(row: RowMapping) -> Export:
    """A row of ``exports``."""
    return Export(**row)


def prediction(row: RowMapping) -> Prediction:
    """A row of ``predictions``."""
    ranked = tuple(tuple((label, share) for label, share in one) for one in row["predictions"])
    digests = tuple(row["digests"]) if row["digests"] is not None else None
    return Prediction(**{**row, "predictions": ranked, "digests": digests})


def kept_image(row: RowMapping) -> KeptImage:
    """A row of ``kept``."""
    return KeptImage(**row)


def promotion(row: RowMapping) -> PromotionRecord:
    """A row of ``promotions``."""
    return PromotionRecord(**row)


def key(row: RowMapping) -> Key:
    """A row of ``keys``."""
    return Key(**{**row, "scopes": frozenset(map(Scope, row["scopes"]))})


def audit_entry(row: RowMapping) -> AuditEntry:
    """A row of ``audit``."""
    return AuditEntry(**row)


def as_json(records: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses as JSON objects, for a JSON column."""
    return [asdict(record) for record in records]
