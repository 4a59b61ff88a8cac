"""Bytes stored under their SHA-256, in a folder or an S3-compatible store; checked whenever they are read.

A blob never changes, so storing it again has no effect. A reader never sees an incomplete blob.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from storage.errors import BlobDamaged, BlobMissing

CHUNK = 1 << 20  # bytes read or written at a time
DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobStore(Protocol):
    """A store of blobs. Digests are SHA-256 in 64 lower-case hexadecimal digits; any other text raises ValueError."""

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest; storing them again changes nothing, or repairs a damaged copy."""
        ...

    def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        """Store a file and return its digest; the store takes the file over: it is gone from ``path`` afterwards.

        A given ``sha256`` is not checked, which saves reading the file once.
        """
        ...

    def get(self, sha256: str) -> bytes:
        """The stored bytes, checked; raises `BlobMissing` and `BlobDamaged`."""
        ...

    def fetch(self, sha256: str, target: Path) -> None:
        """Copy or link a blob to ``target`` in bounded memory; the file appears complete and checked, or not at all.

        The file must not be changed: it may be a hard link to the stored one. It stays when the blob is deleted. Raises
        `BlobMissing` and `BlobDamaged`.
        """
        ...

    def parts(self, sha256: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Bytes of a blob for each (offset, length), fewer where it ends; raises `BlobMissing`.

        The bytes are not checked: the caller has checksums for them.
        """
        ...

    def exists(self, sha256: str) -> bool:
        """Whether a blob of that digest is stored; its content is not looked at."""
        ...

    def delete(self, sha256: str) -> None:
        """Delete a blob, if it is stored; raises OSError if it cannot be deleted."""
        ...

    def digests(self, *, least_age: float = 0.0) -> Iterator[str]:
        """Digests of the blobs that were stored at least ``least_age`` seconds ago, in no particular order."""
        ...

    def sync(self) -> None:
        """Return when all blobs put through this object would survive a power cut; call it before a commit."""
        ...


def checked_digest(sha256: str) -> str:
    """The digest itself; ValueError for anything else, so that no name ever leads out of the store."""
    if not DIGEST.fullmatch(sha256):
        raise ValueError(f"a blob is named by 64 lower-case hexadecimal digits, got {sha256[:80]!r}")
    return sha256


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(sha256: str) -> BlobMissing:
    """The error for a blob that is not stored."""
    return BlobMissing(f"blob {sha256} is not in the store: restore it from a backup", sha256=sha256)


def damaged(sha256: str, found: str) -> BlobDamaged:
    """The error for stored bytes that are not the ones that were put; ``found`` is their digest or a description."""
    detail = f"blob {sha256} is damaged (its bytes hash to {found}): upload it again or restore it from a backup"
    return BlobDamaged(detail, sha256=sha256)


@contextmanager
def arriving(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target``, renamed to it at the end, or removed after an error."""
    unfinished = target.with_name(f".{target.name[:80]}-{uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
