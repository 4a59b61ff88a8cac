"""Which blob an unfinished increment would go on from, and when it is let go.

The row of an increment that has ended keeps naming its checkpoint until a sweep comes by, so whoever ends it, in
whatever way, has nothing to clean up, and a crash in between leaves nothing behind. Checkpoints go as all blobs do: let
go of in the transaction, and deleted if nothing else is the same blob.
"""

from dataclasses import asdict

from sqlalchemy import Connection, null, select, update

from storage.database import rows
from storage.database.tables import increments
from storage.domain import IncrementStatus, StoredCheckpoint
from storage.material import references
from storage.work.leases import Claim

FINAL = tuple(status for status in IncrementStatus if status.is_final)


def record(connection: Connection, held: Claim, made: StoredCheckpoint) -> bool:
    """Make it the one to go on from, and let go of the one before; of this one, and False, when the claim is lost.

    Its bytes are stored durably. Training has come further, so the attempts that ended early no longer count.
    """
    query = select(increments).where(held.row).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        references.release(connection, [made.sha256])
        return False
    replaced = rows.increment(row).checkpoint
    connection.execute(update(increments).where(held.row).values(checkpoint=asdict(made), crashes=0))
    if replaced is not None and replaced.sha256 != made.sha256:  # the same, if the answer to the first commit was lost
        references.release(connection, [replaced.sha256])
    return True


def are_obsolete(connection: Connection) -> bool:
    """Whether an increment that has ended still names a checkpoint."""
    return connection.scalar(select(increments.c.id).where(_obsolete).limit(1)) is not None


def let_go(connection: Connection, *, limit: int = 100) -> None:
    """Let go of checkpoints of increments that have ended."""
    query = select(increments).where(_obsolete).order_by(increments.c.arrival).limit(limit).with_for_update()
    ended = [rows.increment(row) for row in connection.execute(query).mappings()]
    references.release(connection, {one.checkpoint.sha256 for one in ended if one.checkpoint is not None})
    named = increments.c.id.in_([one.id for one in ended])
    connection.execute(update(increments).where(named).values(checkpoint=None))


_obsolete = increments.c.status.in_(FINAL) & increments.c.checkpoint.is_not(null())
