"""Deletion of released blobs: at once after the transaction that released them, or later if it was interrupted."""

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
_TOGETHER = 100  # blobs in one transaction, for which other writers may have to wait


def dispose(*, database: Database, blobs: BlobStore, scratch: Path) -> None:
    """Delete every released blob that nothing refers to, and rewrite packs that hold files of deleted images.

    A blob that cannot be deleted is tried again later.
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
            failures = references.take(connection, rest)  # a transaction that begins to refer to one waits for this one
            for digest in sorted(references.unreferenced(connection, rest)):
                try:
                    blobs.delete(digest)
                except OSError as error:
                    _postpone(connection, digest, failures, error)


def _postpone(connection: Connection, digest: str, failures: Mapping[str, int], error: Exception) -> None:
    """Put a blob that cannot be deleted back on the list, so that the others go on; logs only its first failure."""
    before = failures.get(digest, 0)
    if not before:
        log.warning("blob %s cannot be deleted, it will be tried again: %s", digest, error)
    references.postpone(connection, digest, failures=before + 1)


def collect(*, database: Database, blobs: BlobStore, scratch: Path, least_age: float) -> tuple[int, int]:
    """Delete unreferenced blobs that no transaction released: processes left them that were killed before a commit.

    Blobs younger than ``least_age`` seconds stay, because a transaction may be about to refer to them. Blobs that were
    stored since the earliest start of a running increment stay too, however long it runs. Returns the number of blobs
    examined, and the number deleted.
    """
    with database.read() as connection:
        least_age += leases.longest_run(connection)
    stored = list(blobs.digests(least_age=least_age))  # before the references are read: no later blob is among them
    with database.write() as connection:
        orphans = set(stored) - references.everything(connection)
        references.release(connection, orphans.union(packs.with_holes(connection)))
    dispose(database=database, blobs=blobs, scratch=scratch)
    return len(stored), len(orphans)


def close_holes(digest: str, *, database: Database, blobs: BlobStore, scratch: Path) -> None:
    """Rewrite a pack without the files of deleted images, or delete it if no image is left.

    If this is interrupted, every image still has its file, and `packs.with_holes` still finds a pack with holes. If
    several processes do it at once, the first one wins.
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
    blobs.delete(digest)  # before its row, by which `packs.with_holes` finds it
    with database.write() as connection:
        packs.forget(connection, digest)


def _move(digest: str, left: Sequence[PackedFile], *, database: Database, blobs: BlobStore, scratch: Path) -> None:
    """Copy the files that are left, in their order, to a new pack, and point their images at it."""
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
    if not moved:  # all images were erased meanwhile, or another process was first
        blobs.delete(anew.digest)


def _runs(files: Sequence[PackedFile]) -> list[tuple[int, int]]:
    """Offset and length of each read, in bytes: adjacent files are read together, until that is ``_READ`` or more."""
    runs: list[tuple[int, int]] = []
    for file in files:
        if runs and sum(runs[-1]) == file.offset and runs[-1][1] < _READ:
            runs[-1] = (runs[-1][0], runs[-1][1] + file.size)
        else:
            runs.append((file.offset, file.size))
    return runs
