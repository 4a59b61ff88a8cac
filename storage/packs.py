"""Packs: blobs that hold many image files as they were uploaded, one after another.

A file for each image would cost ingestion more than decoding it does, and an object store a request each. A pack begins
with random bytes, so that no two are the same blob: it belongs to one batch, and goes with the last of its images,
whoever else stores the same ones. Layout: 16 random bytes, then the files; where each lies stands in its row, and its
SHA-256 there tells whether it is whole.
"""

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from storage import images as stored_images
from storage import models, references
from storage.blobs import BlobStore, damaged
from storage.database import Database
from storage.domain import Image, Pack
from storage.errors import BlobMissing
from storage.tables import batches, images, packs
from storage.uncached import UncachedFile

LARGEST = 64 << 20  # bytes of files, with which a pack takes no more; bounds what is written anew when an image goes
SALT = 16  # bytes before the first file
_VECTOR = 512  # pieces of one write; Linux takes 1,024


class PackedFile(NamedTuple):
    """Where the file of an image is in its pack."""

    image: str
    offset: int
    size: int


class PackWriter:
    """A new pack at a path, file by file."""

    def __init__(self, path: Path, *, read_soon: bool = False) -> None:
        """Begin with none. ``read_soon``: what was added can be read at the path after the next `flush`."""
        self.path = path
        self._file = path.open("xb", buffering=0) if read_soon else UncachedFile(path)
        self._is_open = True
        self._waiting: list[bytes] = []
        self._hash = hashlib.sha256()
        self._end = 0
        self.add(secrets.token_bytes(SALT))

    @property
    def size(self) -> int:
        """Bytes of the files so far."""
        return self._end - SALT

    def add(self, data: bytes) -> int:
        """Append a file, or several together, and say where it begins; `flush` before memory is short."""
        offset = self._end
        self._waiting.append(data)
        self._end += len(data)
        return offset

    def flush(self) -> None:
        """Write what was added."""
        for data in self._waiting:
            self._hash.update(data)
            if isinstance(self._file, UncachedFile):
                self._file.write(data)
        if not isinstance(self._file, UncachedFile):
            _write_all(self._file.fileno(), self._waiting)
        self._waiting.clear()

    def close(self) -> None:
        """Write the rest and end it."""
        if self._is_open:
            self._is_open = False
            try:
                self.flush()
            finally:
                self._file.close()

    def store(self, blobs: BlobStore) -> Pack:
        """Put it, closed, into a store; it is gone from its path afterwards."""
        return Pack(blobs.put_file(self.path, sha256=self._hash.hexdigest()), self.size)


def original(image: Image, *, database: Database, blobs: BlobStore) -> bytes:
    """An image file as it was uploaded; raises `BlobMissing`, `BlobDamaged`, and `ImageNotFound` once it is erased."""
    try:
        return _read(blobs, image)
    except BlobMissing:
        with database.read() as connection:
            now = stored_images.get(connection, image.id)
        if now.pack == image.pack:
            raise
        return _read(blobs, now)  # its pack was written anew in between


def record(connection: Connection, written: Iterable[Pack]) -> None:
    """Know packs, in the transaction that writes the rows of their images."""
    if values := [{"digest": pack.digest, "size": pack.size} for pack in written]:
        connection.execute(insert(packs), values)


def with_holes(connection: Connection, *, among: Collection[str] | None = None) -> tuple[str, ...]:
    """Packs that hold files of images that are gone, of all their images perhaps."""
    query = (
        select(packs.c.digest)
        .join(images, images.c.pack == packs.c.digest, isouter=True)
        .group_by(packs.c.digest, packs.c.size)
        .having(func.coalesce(func.sum(images.c.size), 0) < packs.c.size)
    )
    if among is None:
        return tuple(connection.scalars(query))
    parts = references.parts(list(among))
    return tuple(digest for part in parts for digest in connection.scalars(query.where(packs.c.digest.in_(part))))


def files(connection: Connection, digest: str) -> tuple[PackedFile, ...]:
    """What images still have in a pack, in its order."""
    query = select(images.c.id, images.c.offset, images.c.size).where(images.c.pack == digest)
    found = (PackedFile(row.id, row.offset, row.size) for row in connection.execute(query))
    return tuple(sorted(found, key=lambda file: file.offset))


def move(connection: Connection, digest: str, left: Sequence[PackedFile], anew: Pack) -> int:
    """Point images at the pack that was written anew with their files, one after another; how many were still there.

    With the lock of their model, as a pack belongs to one batch: an image is erased before, or from the new pack.
    """
    owner = select(batches.c.model_id).join(images, images.c.batch_id == batches.c.id).where(images.c.pack == digest)
    for model_id in connection.scalars(owner.limit(1)).all():
        models.lock_id(connection, model_id)
    offset, moved = SALT, 0
    for file in left:
        here = (images.c.id == file.image) & (images.c.pack == digest)
        moved += connection.execute(update(images).where(here).values(pack=anew.digest, offset=offset)).rowcount
        offset += file.size
    if moved:
        record(connection, [anew])
    if 0 < moved < len(left):  # some went meanwhile, and named the pack that they were in when they did
        references.release(connection, [anew.digest])
    return moved


def forget(connection: Connection, digest: str) -> None:
    """Know a pack no longer, whose blob is deleted."""
    connection.execute(delete(packs).where(packs.c.digest == digest))


def _read(blobs: BlobStore, image: Image) -> bytes:
    if image.pack is None or image.offset is None:
        return blobs.get(image.digest)
    data = next(iter(blobs.parts(image.pack, [(image.offset, image.size)])))
    if (found := hashlib.sha256(data).hexdigest()) != image.digest:
        raise damaged(image.digest, found)
    return data


def _write_all(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write pieces as they lie: joining them costs a quarter of writing them."""
    left = deque(memoryview(data) for data in pieces)
    while left:
        written = os.writev(descriptor, list(islice(left, _VECTOR)))
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]
