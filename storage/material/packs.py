"""Packs, and where images are in them: reading an image file, and rewriting a pack after erasures.

`storage.blobs.pack` writes them.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from storage.blobs.pack import SALT
from storage.blobs.store import BlobStore, damaged
from storage.database import locks
from storage.database.engine import Database
from storage.database.tables import batches, images, packs
from storage.domain import Image, Pack
from storage.errors import BlobMissing
from storage.material import images as stored_images
from storage.material import references


class PackedFile(NamedTuple):
    """Where the file of an image is in its pack."""

    image: str
    offset: int
    size: int


def original(image: Image, *, database: Database, blobs: BlobStore) -> bytes:
    """An image file as it was uploaded; raises `BlobMissing`, `BlobDamaged`, and `ImageNotFound` once it is erased."""
    try:
        return _read(blobs, image)
    except BlobMissing:
        with database.read() as connection:
            now = stored_images.get(connection, image.id)
        if now.pack == image.pack:
            raise
        return _read(blobs, now)  # its pack was rewritten in between


def record(connection: Connection, written: Iterable[Pack]) -> None:
    """Add rows for packs, in the transaction that writes the rows of their images."""
    if values := [{"digest": pack.digest, "size": pack.size} for pack in written]:
        connection.execute(insert(packs), values)


def with_holes(connection: Connection, *, among: Collection[str] | None = None) -> tuple[str, ...]:
    """Digests of the packs that hold files of deleted images, including packs without any image left."""
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
    """The files in a pack that images still refer to, ordered by offset."""
    query = select(images.c.id, images.c.offset, images.c.size).where(images.c.pack == digest)
    found = (PackedFile(row.id, row.offset, row.size) for row in connection.execute(query))
    return tuple(sorted(found, key=lambda file: file.offset))


def move(connection: Connection, digest: str, left: Sequence[PackedFile], anew: Pack) -> int:
    """Point images at the pack ``anew``, which holds the files ``left`` in this order; returns how many still exist.

    Locks the model of the images (a pack belongs to one batch). So an image is erased either before this transaction,
    or after it and from the new pack.
    """
    owner = select(batches.c.model_id).join(images, images.c.batch_id == batches.c.id).where(images.c.pack == digest)
    for model_id in connection.scalars(owner.limit(1)).all():
        locks.lock_model(connection, model_id)
    offset, moved = SALT, 0
    for file in left:
        here = (images.c.id == file.image) & (images.c.pack == digest)
        moved += connection.execute(update(images).where(here).values(pack=anew.digest, offset=offset)).rowcount
        offset += file.size
    if moved:
        record(connection, [anew])
    if 0 < moved < len(left):  # images that were erased meanwhile have released the old pack only
        references.release(connection, [anew.digest])
    return moved


def forget(connection: Connection, digest: str) -> None:
    """Delete the row of a pack whose blob is deleted."""
    connection.execute(delete(packs).where(packs.c.digest == digest))


def _read(blobs: BlobStore, image: Image) -> bytes:
    if image.pack is None or image.offset is None:
        return blobs.get(image.digest)
    data = next(iter(blobs.parts(image.pack, [(image.offset, image.size)])))
    if (found := hashlib.sha256(data).hexdigest()) != image.digest:
        raise damaged(image.digest, found)
    return data
