"""Conversion of table rows to the frozen records of `storage.domain`, and pages of such records."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Connection, RowMapping, Select

from storage.database.columns import HIGHEST_BIG_INTEGER, HIGHEST_INTEGER
from storage.database.tables import increments
from storage.domain import (
    Attempt,
    AuditEntry,
    Batch,
    BatchStatus,
    ClassCount,
    Event,
    Ignored,
    Image,
    Increment,
    IncrementReport,
    IncrementStatus,
    Key,
    KnownClasses,
    Memory,
    Model,
    Page,
    Prediction,
    Promotion,
    PromotionRecord,
    Reject,
    Retention,
    Scope,
    Split,
    StoredCheckpoint,
    StoredFile,
    Unshown,
    Version,
)
from storage.errors import Invalid

Record = TypeVar("Record")


def model(row: RowMapping) -> Model:
    """A row of ``models``."""
    return Model(**{**row, "memory": _memory(row), "retention": Retention(row["retention"])})


def batch(row: RowMapping) -> Batch:
    """A row of ``batches``."""
    return Batch(
        **{
            **row,
            "status": BatchStatus(row["status"]),
            "classes": tuple(ClassCount(**count) for count in row["classes"]),
            "ignored": tuple(Ignored(**group | {"files": tuple(group["files"])}) for group in row["ignored"] or ()),
            "notes": tuple(row["notes"] or ()),
        }
    )


def reject(row: RowMapping) -> Reject:
    """A row of ``rejects``."""
    return Reject(file=row["file"], reason=row["reason"])


def image(row: RowMapping) -> Image:
    """A row of ``images``."""
    return Image(**{**row, "split": Split(row["split"]) if row["split"] is not None else None})


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
        reject_count=row["reject_count"],
        seconds=row["seconds"] or {},
    )


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
            "files": {name: StoredFile(**file) for name, file in row["files"].items()},
        }
    )


def prediction(row: RowMapping) -> Prediction:
    """A row of ``predictions``."""
    ranked = tuple(tuple((label, share) for label, share in one) for one in row["predictions"])
    digests = tuple(row["digests"]) if row["digests"] is not None else None
    return Prediction(**{**row, "predictions": ranked, "digests": digests})


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


def page(
    connection: Connection,
    query: Select[Any],
    *,
    key: ColumnElement[Any],
    read: Callable[[RowMapping], Record],
    limit: int,
    cursor: str | None,
    descending: bool = False,
) -> Page[Record]:
    """The next ``limit`` records after ``cursor``, ordered by a unique key, with the cursor of the next page.

    Raises `Invalid` when ``cursor`` was not made here.
    """
    if cursor is not None:
        after = _decode(cursor, like=key)
        query = query.where(key < after if descending else key > after)
    query = query.order_by(key.desc() if descending else key.asc()).limit(limit + 1)
    rows = connection.execute(query.add_columns(key.label("_key"))).mappings().all()
    records = [read(_without_key(row)) for row in rows[:limit]]
    following = _encode(rows[limit - 1]["_key"]) if len(rows) > limit else None
    return Page(items=tuple(records), next_cursor=following)


def _without_key(row: RowMapping) -> Any:
    return {name: value for name, value in row.items() if name != "_key"}


def _encode(key: Any) -> str:
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def _decode(cursor: str, *, like: ColumnElement[Any]) -> Any:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        key = like.type.python_type(text)
        if _encode(key) != cursor or not _fits(key, like):
            raise ValueError(text)
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise Invalid(f"cursor {cursor!r} is none of ours: pass on next_cursor as it came, or leave it out") from error
    return key


def _fits(key: Any, column: ColumnElement[Any]) -> bool:
    """Whether the database accepts the value: PostgreSQL refuses numbers out of range and texts with a NUL."""
    if isinstance(key, str):
        return key != "" and "\0" not in key
    return bool(0 <= key <= (HIGHEST_BIG_INTEGER if isinstance(column.type, BigInteger) else HIGHEST_INTEGER))
