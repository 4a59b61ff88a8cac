"""The checkpoint that an unfinished increment would resume from, and its release.

The row of an increment that has ended names its checkpoint until a sweep releases it. So the code that ends an
increment has nothing to clean up, and a crash leaves nothing behind. Checkpoints are deleted as all blobs are: released
in a transaction, and deleted afterwards if nothing else refers to the same blob.
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
    """Record a checkpoint, which is stored durably already, and release the one before it.

    When the claim is lost, releases the new checkpoint instead and returns False. Because training has advanced, the
    crashes before no longer count.
    """
    query = select(increments).where(held.row).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        references.release(connection, [made.sha256])
        return False
    replaced = rows.increment(row).checkpoint
    connection.execute(update(increments).where(held.row).values(checkpoint=asdict(made), crashes=0))
    if replaced is not None and replaced.sha256 != made.sha256:  # equal if the first commit's answer was lost
        references.release(connection, [replaced.sha256])
    return True


def are_obsolete(connection: Connection) -> bool:
    """Whether an increment that has ended still names a checkpoint."""
    return connection.scalar(select(increments.c.id).where(_obsolete).limit(1)) is not None


def let_go(connection: Connection, *, limit: int = 100) -> None:
    """Release the checkpoints of increments that have ended, at most ``limit``."""
    query = select(increments).where(_obsolete).order_by(increments.c.arrival).limit(limit).with_for_update()
    ended = [rows.increment(row) for row in connection.execute(query).mappings()]
    references.release(connection, {one.checkpoint.sha256 for one in ended if one.checkpoint is not None})
    named = increments.c.id.in_([one.id for one in ended])
    connection.execute(update(increments).where(named).values(checkpoint=None))


_obsolete = increments.c.status.in_(FINAL) & increments.c.checkpoint.is_not(null())
