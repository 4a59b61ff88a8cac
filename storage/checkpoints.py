"""Which blob an unfinished increment would go on from, and when it is let go.

The row of an increment that has ended keeps naming its checkpoint until the blob is deleted, so whoever ends it, in
whatever way, has nothing to clean up, and a crash in between leaves nothing behind.
"""

from dataclasses import asdict

from sqlalchemy import Connection, null, select, update

from storage import rows
from storage.domain import Increment, IncrementStatus, StoredCheckpoint
from storage.leases import Claim
from storage.tables import increments

FINAL = tuple(status for status in IncrementStatus if status.is_final)


def record(connection: Connection, held: Claim, made: StoredCheckpoint) -> tuple[StoredCheckpoint, ...] | None:
    """Make it the one to go on from; what it takes the place of, one at most, or None when the claim is lost.

    Its bytes are stored durably. Training has come further, so the attempts that ended early no longer count.
    """
    query = select(increments).where(held.row).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    connection.execute(update(increments).where(held.row).values(checkpoint=asdict(made), crashes=0))
    replaced = rows.increment(row).checkpoint
    return (replaced,) if replaced is not None else ()


def obsolete(connection: Connection, *, limit: int = 100) -> tuple[Increment, ...]:
    """Increments that have ended and whose checkpoint is not deleted yet."""
    query = (
        select(increments)
        .where(increments.c.status.in_(FINAL))
        .where(increments.c.checkpoint.is_not(null()))
        .order_by(increments.c.arrival)
        .limit(limit)
    )
    return tuple(rows.increment(row) for row in connection.execute(query).mappings())


def forget(connection: Connection, ended: Increment) -> None:
    """Note that the blob of an obsolete checkpoint is gone; one that was tried again meanwhile stays as it is."""
    query = select(increments).where(increments.c.id == ended.id).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return
    found = rows.increment(row)
    if found.status.is_final and found.checkpoint == ended.checkpoint:
        connection.execute(update(increments).where(increments.c.id == ended.id).values(checkpoint=None))
