"""Deleting blobs that were let go of, at once where the transaction is over, or later where something came between."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from storage.blobs.pack import PackWriter
from storage.blobs.store import BlobStore, damaged
from storage.database.engine import Database
from storage.domain import new_id
from storage.errors import BlobDamaged, BlobMissing
from storage.material import packs, references
from storage.material.packs import PackedFile
from storage.work import leases

log = logging.getLogger(__name__)

_READ = 4 << 20  # bytes of a pack copied at a time, about
_TOGETHER = 100  # blobs of one transaction, which others who write may have to wait for


def dispose(*, database: Database, blobs: BlobStore, scratch: Path) -> None:
    """Delete every blob that was let go of and that nothing refers to; write packs anew that hold what is gone.

    What cannot be deleted is left for a later time.
    """
    while True:
        with database.read() as connection:
            named = references.waiting(connection, limit=_TOGETHER)
            pierced = packs.with_holes(connection, among=named)
        if not named:
            return
        kept = set()
        for digest in pierced:
            try:
                close_holes(digest, database=database, blobs=blobs, scratch=scratch)
            except (OSError, BlobMissing, BlobDamaged) as error:
                kept.add(digest)
                with database.write() as connection:
                    failures = references.take(connection, [digest])
                    _postpone(connection, digest, failures, error)
        with database.write() as connection:
            rest = set(named) - kept
            failures = references.take(connection, rest)  # whoever begins to refer to one now waits for our end
            for digest in sorted(references.unreferenced(connection, rest)):
                try:
                    blobs.delete(digest)
                except OSError as error:
                    _postpone(connection, digest, failures, error)


def _postpone(connection: Connection, digest: str, failures: Mapping[str, int], error: Exception) -> None:
    """One blob that cannot be deleted stops no other; it is told once, and counted in the metrics."""
    before = failures.get(digest, 0)
    if not before:
        log.warning("blob %s cannot be deleted, it will be tried again: %s", digest, error)
    references.postpone(connection, digest, failures=before + 1)


def collect(*, database: Database, blobs: BlobStore, scratch: Path, least_age: float) -> tuple[int, int]:
    """Delete what nothing refers to and nobody let go of: left by processes that were killed before they committed.

    Blobs younger than ``least_age`` seconds may be about to be referred to, and stay; so does whatever was stored since
    the first of the increments that run was begun, however long that takes. Returns how many blobs were looked at, and
    how many deleted.
    """
    with database.read() as connection:
        least_age += leases.longest_run(connection)
    stored = list(blobs.digests(least_age=least_age))  # before the references are read: what comes later has some
    with database.write() as connection:
        orphans = set(stored) - references.everything(connection)
        references.release(connection, orphans.union(packs.with_holes(connection)))
    dispose(database=database, blobs=blobs, scratch=scratch)
    return len(stored), len(orphans)


def close_holes(digest: str, *, database: Database, blobs: BlobStore, scratch: Path) -> None:
    """Write a pack anew without the files of images that are gone, or remove it where all are.

    Whatever interrupts it, each image has its file, and `packs.with_holes` still names a pack that has some. Of several
    that do it at once, one is first.
    """
    with database.read() as connection:
        left = packs.files(connection, digest)
        pierced = packs.with_holes(connection, among=[digest])
    if not pierced:
        return
    if left:
        try:
            _move(digest, left, database=database, blobs=blobs, scratch=scratch)
        except BlobMissing:
            with database.read() as connection:
                if packs.files(connection, digest):
                    raise
            # another process has moved them, and was faster
    blobs.delete(digest)  # before its row, which is what says that it is to go
    with database.write() as connection:
        packs.forget(connection, digest)


def _move(digest: str, left: Sequence[PackedFile], *, database: Database, blobs: BlobStore, scratch: Path) -> None:
    """Copy files, in their order, to a pack of their own."""
    scratch.mkdir(parents=True, exist_ok=True)
    writer = PackWriter(scratch / f"pack-{new_id()}")
    try:
        spans = _runs(left)
        for (_, length), data in zip(spans, blobs.parts(digest, spans), strict=True):
            if len(data) < length:
                raise damaged(digest, f"only {len(data)} of {length} bytes where images should be")
            writer.add(data)
            writer.flush()
        writer.close()
        anew = writer.store(blobs)
    finally:
        writer.close()
        writer.path.unlink(missing_ok=True)
    blobs.sync()
    with database.write() as connection:
        moved = packs.move(connection, digest, left, anew)
    if not moved:  # all went meanwhile, or another process was first
        blobs.delete(anew.digest)


def _runs(files: Sequence[PackedFile]) -> list[tuple[int, int]]:
    """Offset and length of what to read: files that touch as one, no longer than ``_READ`` by more than a file."""
    runs: list[tuple[int, int]] = []
    for file in files:
        if runs and sum(runs[-1]) == file.offset and runs[-1][1] < _READ:
            runs[-1] = (runs[-1][0], runs[-1][1] + file.size)
        else:
            runs.append((file.offset, file.size))
    return runs
