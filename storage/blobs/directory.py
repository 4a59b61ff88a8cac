"""Blobs in a folder: a file for each, named by its SHA-256."""

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from storage.blobs.store import DIGEST, arriving, checked_digest, damaged, file_digest, missing

# No hard link is possible: another device, a file system without links, too many links, or another user's file.
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


class DirectoryBlobs:
    """Blobs as files ``root/aa/aabb…``, written under a temporary name in the same root and renamed."""

    PENDING = 4096  # blobs put and not yet synced, at most: bounds memory and the length of a sync
    ABANDONED = 24 * 3600.0  # seconds without a write after which an unfinished file counts as abandoned

    def __init__(self, root: Path) -> None:
        """Create the folder if it is missing, and delete unfinished files that killed processes left a day ago."""
        self.root = root.resolve()
        self._unfinished = self.root / "unfinished"
        self._unfinished.mkdir(parents=True, exist_ok=True)
        self._pending: set[str] = set()
        self._lock = threading.Lock()  # guards `_pending`
        self._syncing = threading.Lock()  # a sync waits for an earlier one, which may flush its blobs
        for left in self._unfinished.iterdir():
            if left.stat().st_mtime < time.time() - self.ABANDONED:
                left.unlink(missing_ok=True)

    def put(self, data: bytes) -> str:
        """Store bytes; see BlobStore."""
        digest = hashlib.sha256(data).hexdigest()
        if not self._holds(digest, len(data)):
            with self._landing(digest) as unfinished:
                unfinished.write_bytes(data)
        self._remember(digest)
        return digest

    def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        """Store a file by moving it, or by copying it when it is on another device; see BlobStore."""
        digest = checked_digest(sha256) if sha256 is not None else file_digest(path)
        if not self._holds(digest, path.stat().st_size):
            try:
                self._rename(path, digest)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with self._landing(digest) as unfinished:
                    shutil.copyfile(path, unfinished)
        path.unlink(missing_ok=True)
        self._remember(digest)
        return digest

    def get(self, sha256: str) -> bytes:
        """The stored bytes; see BlobStore."""
        try:
            data = self._path(sha256).read_bytes()
        except FileNotFoundError:
            raise missing(sha256) from None
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise damaged(sha256, found)
        return data

    def fetch(self, sha256: str, target: Path) -> None:
        """Make a hard link to a blob, or copy it where no link is possible; see BlobStore."""
        with arriving(target) as unfinished:
            try:
                try:
                    unfinished.hardlink_to(self._path(sha256))
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    shutil.copyfile(self._path(sha256), unfinished)
            except FileNotFoundError:
                if self.exists(sha256):
                    raise  # it is the target's folder that is missing
                raise missing(sha256) from None
            if (found := file_digest(unfinished)) != sha256:
                raise damaged(sha256, found)

    def parts(self, sha256: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Bytes of the file; see BlobStore."""
        try:
            descriptor = os.open(self._path(sha256), os.O_RDONLY)
        except FileNotFoundError:
            raise missing(sha256) from None
        try:
            for offset, length in spans:
                yield _read_at(descriptor, offset, length)
        finally:
            os.close(descriptor)

    def exists(self, sha256: str) -> bool:
        """Whether the file is there; see BlobStore."""
        return self._path(sha256).exists()

    def delete(self, sha256: str) -> None:
        """Remove the file; see BlobStore."""
        self._path(sha256).unlink(missing_ok=True)

    def digests(self, *, least_age: float = 0.0) -> Iterator[str]:
        """Walk the folder, one of its 256 parts in memory at a time; see BlobStore."""
        latest = time.time() - least_age
        for number in range(256):
            folder = self.root / f"{number:02x}"
            paths = list(folder.iterdir()) if folder.exists() else []
            yield from (path.name for path in paths if DIGEST.fullmatch(path.name) and _is_from(path, latest))

    def sync(self) -> None:
        """Flush files, then the folders that name them; see BlobStore."""
        with self._syncing:
            with self._lock:
                batch, self._pending = self._pending, set()
            if not batch:
                return
            try:
                # Parallel fsyncs share the file system's journal commits: many times faster than one by one.
                with ThreadPoolExecutor(16) as pool:
                    list(pool.map(flush, map(self._path, batch)))
                    list(pool.map(flush, {self._path(digest).parent for digest in batch}))
                flush(self.root)
            except BaseException:
                with self._lock:
                    self._pending |= batch
                raise

    def _path(self, sha256: str) -> Path:
        return self.root / checked_digest(sha256)[:2] / sha256

    def _rename(self, source: Path, sha256: str) -> None:
        path = self._path(sha256)
        try:
            source.replace(path)
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
            source.replace(path)

    def _holds(self, sha256: str, size: int) -> bool:
        """Whether an undamaged copy is stored; after a power cut a file may be there and empty."""
        path = self._path(sha256)
        return path.exists() and path.stat().st_size == size and file_digest(path) == sha256

    @contextmanager
    def _landing(self, sha256: str) -> Iterator[Path]:
        """A temporary path in the root, renamed to the blob's at the end."""
        unfinished = self._unfinished / uuid4().hex
        try:
            yield unfinished
            self._rename(unfinished, sha256)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def _remember(self, sha256: str) -> None:
        with self._lock:
            self._pending.add(sha256)
            crowded = len(self._pending) >= self.PENDING
        if crowded:
            self.sync()


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk (fsync), unless it was deleted meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_from(path: Path, latest: float) -> bool:
    """Whether a file was last written at ``latest`` (seconds since 1970) or before; False if it was deleted."""
    try:
        return path.stat().st_mtime <= latest
    except FileNotFoundError:
        return False


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    """``length`` bytes of an open file from ``offset`` on; fewer only where the file ends."""
    parts = []
    while length and (part := os.pread(descriptor, length, offset)):
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)
