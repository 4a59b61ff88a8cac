"""Deleting blobs that were let go of, at once where the transaction is over, or later where something came between."""

from pathlib import Path

from storage import packs, references
from storage.blobs import BlobStore
from storage.database import Database

_TOGETHER = 100  # blobs of one transaction, which others who write may have to wait for


def dispose(*, database: Database, blobs: BlobStore, scratch: Path) -> None:
    """Delete every blob that was let go of and that nothing refers to; write packs anew that hold what is gone."""
    while True:
        with database.read() as connection:
            named = references.waiting(connection, limit=_TOGETHER)
            pierced = packs.with_holes(connection, among=named)
        if not named:
            return
        for digest in pierced:
            packs.close_holes(digest, database=database, blobs=blobs, scratch=scratch)
        with database.write() as connection:
            references.take(connection, named)  # whoever begins to refer to one of them now waits for our end
            for digest in sorted(references.unreferenced(connection, named)):
                blobs.delete(digest)


def collect(*, database: Database, blobs: BlobStore, scratch: Path, least_age: float) -> tuple[int, int]:
    """Delete what nothing refers to and nobody let go of: left by processes that were killed before they committed.

    Blobs younger than ``least_age`` seconds may be about to be referred to, and stay. Returns how many blobs were
    looked at, and how many deleted.
    """
    dispose(database=database, blobs=blobs, scratch=scratch)
    stored = list(blobs.digests(least_age=least_age))  # before the references are read: what comes later has some
    with database.read() as connection:
        orphans = set(stored) - references.everything(connection)
        pierced = packs.with_holes(connection)
    with database.write() as connection:
        references.release(connection, orphans)
    for digest in pierced:
        packs.close_holes(digest, database=database, blobs=blobs, scratch=scratch)
    dispose(database=database, blobs=blobs, scratch=scratch)
    return len(stored), len(orphans)
