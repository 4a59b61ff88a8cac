"""The rejects of a batch: its files that are not usable images, with the reasons."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select, update

from storage.database import pages, rows
from storage.database.tables import batches, rejects
from storage.domain import Page, Reject

SHOWN = 100  # rejects that are shown together with their batch


def record(connection: Connection, batch_id: str, found: Sequence[Reject]) -> None:
    """Write the rejects of a batch, replacing those that were recorded before."""
    connection.execute(delete(rejects).where(rejects.c.batch_id == batch_id))
    values = [{"batch_id": batch_id, "position": place} | asdict(reject) for place, reject in enumerate(found)]
    if values:
        connection.execute(insert(rejects), values)
    connection.execute(update(batches).where(batches.c.id == batch_id).values(reject_count=len(values)))


def first(connection: Connection, batch_ids: Collection[str]) -> Mapping[str, tuple[Reject, ...]]:
    """The first ``SHOWN`` rejects of each batch, by batch id; batches without rejects are left out."""
    if not batch_ids:
        return {}
    query = select(rejects).where(rejects.c.batch_id.in_(batch_ids)).where(rejects.c.position < SHOWN)
    found: dict[str, list[Reject]] = {}
    for row in connection.execute(query.order_by(rejects.c.batch_id, rejects.c.position)).mappings():
        found.setdefault(row["batch_id"], []).append(rows.reject(row))
    return {batch_id: tuple(named) for batch_id, named in found.items()}


def page(connection: Connection, batch_id: str, *, limit: int, cursor: str | None) -> Page[Reject]:
    """The rejects of a batch: first those found by name, in the archive's order, then those found by content."""
    query = select(rejects.c.file, rejects.c.reason).where(rejects.c.batch_id == batch_id)
    return pages.page(connection, query, key=rejects.c.position, read=rows.reject, limit=limit, cursor=cursor)
