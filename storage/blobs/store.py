"""Bytes stored under their SHA-256, in a folder or an S3-compatible store; checked whenever they are read.

A blob never changes, so writing it twice is writing it once, and no reader ever sees half of one.
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
    """Where bytes live. Digests are SHA-256 in 64 lower-case hexadecimal digits; anything else is a ValueError."""

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest; storing them again changes nothing, or repairs a damaged copy."""
        ...

    def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        """Store a file and return its digest; the store takes the file over: it is gone from ``path`` afterwards.

        A ``sha256`` that is given (by whoever wrote the file) is believed and saves one reading of it.
        """
        ...

    def get(self, sha256: str) -> bytes:
        """The stored bytes, checked: BlobMissing, BlobDamaged."""
        ...

    def fetch(self, sha256: str, target: Path) -> None:
        """Bring a blob to ``target`` in bounded memory; the file appears whole and checked, or not at all.

        It is to be read only: it may be the stored one, by a second name. It stays when the blob is deleted.
        """
        ...

    def parts(self, sha256: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Bytes of a blob by offset and length, fewer where it ends: BlobMissing.

        They are not checked: who reads parts has checksums for them.
        """
        ...

    def exists(self, sha256: str) -> bool:
        """Whether a blob of that digest is stored; its content is not looked at."""
        ...

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not there is removed already. OSError where it cannot be removed."""
        ...

    def digests(self, *, least_age: float = 0.0) -> Iterator[str]:
        """Digest of every blob that has been stored for so many seconds, in no order."""
        ...

    def sync(self) -> None:
        """Return once everything put through this object before survives a power cut; call it before a commit."""
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
    """What to say when a blob is not there."""
    return BlobMissing(f"blob {sha256} is not in the store: restore it from a backup", sha256=sha256)


def damaged(sha256: str, found: str) -> BlobDamaged:
    """What to say when stored bytes are not the ones that were put."""
    detail = f"blob {sha256} is damaged (its bytes hash to {found}): upload it again or restore it from a backup"
    return BlobDamaged(detail, sha256=sha256)


@contextmanager
def arriving(target: Path) -> Iterator[Path]:
    """A name beside ``target`` to write to; renamed to it at the end, removed if anything went wrong before."""
    unfinished = target.with_name(f".{target.name[:80]}-{uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
