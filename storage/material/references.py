"""References to blobs, and the list of released blobs: those to be deleted unless something refers to them.

A transaction that ceases to refer to a blob puts it on the list (`release`). `storage.maintenance.disposal` deletes it
after the commit, or later if the process was killed in between. A transaction that begins to refer to a blob takes it
off the list (`keep`). Both lock the same row, so a blob that one transaction has just found stored is not deleted.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Connection, delete, func, insert, null, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from storage.database.prediction_tables import kept
from storage.database.tables import batches, images, increments, released, versions
from storage.domain import now

Value = TypeVar("Value")
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0  # seconds before a blob that could not be deleted is tried again


def release(connection: Connection, digests: Iterable[str]) -> None:
    """Put blobs on the list: after this transaction those are deleted that nothing refers to.

    A row that exists already is written again, which locks it. A disposal that would take the blob off the list,
    because something still refers to it, then waits for this transaction and checks the references after it.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    for part in parts(sorted(set(digests))):
        statement = dialect.insert(released)
        again = {"digest": statement.excluded.digest}
        statement = statement.on_conflict_do_update(index_elements=["digest"], set_=again)
        connection.execute(statement, [{"digest": digest} for digest in part])


def keep(connection: Connection, digests: Collection[str], *, exists: Callable[[str], bool]) -> tuple[str, ...]:
    """Take blobs off the list to which this transaction begins to refer.

    Returns the digests of those that were deleted just before; the caller has to put them again. Each row is written
    and then deleted, which locks it even if it did not exist. So another transaction that releases the blob waits
    until this reference is visible.
    """
    release(connection, digests)
    take(connection, digests)
    return tuple(digest for digest in sorted(set(digests)) if not exists(digest))


def take(connection: Connection, digests: Collection[str]) -> dict[str, int]:
    """Take blobs off the list, waiting for a transaction that deletes them; returns the failed deletions of each."""
    failures: dict[str, int] = {}
    for part in parts(sorted(set(digests))):
        these = released.c.digest.in_(part)
        rows = select(released.c.digest, released.c.failures).where(these).order_by(released.c.digest)
        failures |= {row.digest: row.failures for row in connection.execute(rows.with_for_update())}
        connection.execute(delete(released).where(these))
    return failures


def postpone(connection: Connection, digest: str, *, failures: int) -> None:
    """Put a blob back on the list after ``failures`` failed deletions; the pause before the next try grows."""
    pause = timedelta(seconds=min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 20)))
    connection.execute(insert(released).values(digest=digest, failures=failures, retry_at=now() + pause))


def waiting(connection: Connection, *, limit: int) -> tuple[str, ...]:
    """Digests of released blobs whose deletion may be tried now, at most ``limit``."""
    due = or_(released.c.retry_at.is_(None), released.c.retry_at <= now())
    return tuple(connection.scalars(select(released.c.digest).where(due).order_by(released.c.digest).limit(limit)))


def awaiting_deletion(connection: Connection) -> int:
    """How many released blobs are not deleted yet, including those whose deletion failed."""
    return connection.scalar(select(func.count()).select_from(released)) or 0


def unreferenced(connection: Connection, digests: Collection[str]) -> frozenset[str]:
    """The digests, of those given, of blobs that nothing in the database refers to."""
    wanted = frozenset(digests)
    return wanted - _in_rows(connection, wanted) - wanted.intersection(_elsewhere(connection))


def everything(connection: Connection) -> frozenset[str]:
    """Digests of all blobs that something refers to."""
    alone = connection.scalars(select(images.c.digest).where(images.c.pack.is_(None)))
    together = (connection.scalars(select(column).where(column.is_not(None)).distinct()) for column in _SHARED)
    of_predictions = connection.scalars(select(kept.c.digest).distinct())
    return frozenset(alone).union(*together, of_predictions, _elsewhere(connection))


def of_model(connection: Connection, model_id: str) -> frozenset[str]:
    """Digests of all blobs that a model refers to, through its batches, increments, versions and predictions."""
    own = images.join(batches, images.c.batch_id == batches.c.id)
    found: set[str | None] = set()
    for column in (images.c.digest, *_SHARED):
        found.update(
            connection.scalars(select(column).select_from(own).where(batches.c.model_id == model_id).distinct())
        )
    found.update(connection.scalars(select(batches.c.archive).where(batches.c.model_id == model_id)))
    found.update(connection.scalars(select(kept.c.digest).where(kept.c.model_id == model_id)))
    for files in connection.scalars(select(versions.c.files).where(versions.c.model_id == model_id)):
        found.update(file["sha256"] for file in files.values())
    for checkpoint in connection.scalars(select(increments.c.checkpoint).where(increments.c.model_id == model_id)):
        found.update({checkpoint["sha256"]} if checkpoint is not None else ())
    return frozenset(digest for digest in found if digest is not None)


def files_in_use(connection: Connection) -> frozenset[str]:
    """Digests of the files of every version that is not deleted."""
    columns = connection.scalars(select(versions.c.files).where(versions.c.deleted_at.is_(None)))
    return frozenset(file["sha256"] for files in columns for file in files.values())


def parts(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """The values in parts of at most 500, because SQLite limits the variables of a statement."""
    for start in range(0, len(values), 500):
        yield values[start : start + 500]


_SHARED = (images.c.pack, images.c.shard)


def _in_rows(connection: Connection, digests: Collection[str]) -> frozenset[str]:
    found: set[str] = set()
    for part in parts(list(digests)):
        alone = select(images.c.digest).where(images.c.digest.in_(part)).where(images.c.pack.is_(None))
        found.update(connection.scalars(alone))
        for column in (*_SHARED, kept.c.digest):
            found.update(connection.scalars(select(column).where(column.in_(part))))
    return frozenset(found)


def _elsewhere(connection: Connection) -> frozenset[str]:
    archives = connection.scalars(select(batches.c.archive).where(batches.c.archive.is_not(None)))
    checkpoints = connection.scalars(select(increments.c.checkpoint).where(increments.c.checkpoint.is_not(null())))
    return files_in_use(connection).union(archives, (checkpoint["sha256"] for checkpoint in checkpoints))
