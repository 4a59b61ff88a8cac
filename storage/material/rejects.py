"""The bad files of a batch: which they are."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select, update

from storage.database import rows
from storage.database.tables import batches, rejects
from storage.domain import Page, Reject

SHOWN = 100  # with their batch


def record(connection: Connection, batch_id: str, found: Sequence[Reject]) -> None:
    """Name the bad files of a batch, in place of those that were named before."""
    connection.execute(delete(rejects).where(rejects.c.batch_id == batch_id))
    values = [{"batch_id": batch_id, "position": place} | asdict(reject) for place, reject in enumerate(found)]
    if values:
        connection.execute(insert(rejects), values)
    connection.execute(update(batches).where(batches.c.id == batch_id).values(reject_count=len(values)))


def first(connection: Connection, batch_ids: Collection[str]) -> Mapping[str, tuple[Reject, ...]]:
    """By batch as many as are shown with it; batches without bad files are left out."""
    if not batch_ids:
        return {}
    query = select(rejects).where(rejects.c.batch_id.in_(batch_ids)).where(rejects.c.position < SHOWN)
    found: dict[str, list[Reject]] = {}
    for row in connection.execute(query.order_by(rejects.c.batch_id, rejects.c.position)).mappings():
        found.setdefault(row["batch_id"], []).append(rows.reject(row))
    return {batch_id: tuple(named) for batch_id, named in found.items()}


def page(connection: Connection, batch_id: str, *, limit: int, cursor: str | None) -> Page[Reject]:
    """The bad files of a batch: those with bad names, in the order of the archive, then those that cannot be used."""
    query = select(rejects.c.file, rejects.c.reason).where(rejects.c.batch_id == batch_id)
    return rows.page(connection, query, key=rejects.c.position, read=rows.reject, limit=limit, cursor=cursor)
