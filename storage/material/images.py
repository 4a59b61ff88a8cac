"""The stored images: those of a batch, their packed copies, and their deletion."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, bindparam, delete, exists, select, update

from storage.database import rows
from storage.database.tables import batches, exemplars, images, relabels
from storage.domain import Image, Retention, Split
from storage.errors import ImageNotFound
from storage.material import references


def get(connection: Connection, image_id: str) -> Image:
    """The image of that id; raises `ImageNotFound`."""
    row = connection.execute(select(images).where(images.c.id == image_id)).mappings().one_or_none()
    if row is None:
        raise ImageNotFound(f"There is no image {image_id!r}.")
    return rows.image(row)


def model_of(connection: Connection, image_id: str) -> str:
    """Id of the model whose batch the image came with; raises `ImageNotFound`."""
    query = select(batches.c.model_id).join(images, images.c.batch_id == batches.c.id).where(images.c.id == image_id)
    model_id = connection.scalar(query)
    if model_id is None:
        raise ImageNotFound(f"There is no image {image_id!r}.")
    return str(model_id)


def of_batch(
    connection: Connection, batch_id: str, *, split: Split | None = None, labels: Collection[str] | None = None
) -> tuple[Image, ...]:
    """Images of a batch, ordered by label, digest and file name: the order depends on the images alone."""
    query = select(images).where(images.c.batch_id == batch_id)
    if split is not None:
        query = query.where(images.c.split == split)
    found = (rows.image(row) for row in connection.execute(query).mappings())
    kept = [image for image in found if labels is None or image.label in labels]
    return tuple(sorted(kept, key=lambda image: (image.label, image.digest, image.filename)))


def relabelled(connection: Connection, batch_ids: Collection[str], *, split: Split) -> tuple[Image, ...]:
    """Images of some batches that were moved to the class they have now after they had been learned."""
    moved = exists().where(relabels.c.image_id == images.c.id)
    found: list[Image] = []
    for part in references.parts(list(batch_ids)):
        query = select(images).where(images.c.batch_id.in_(part), images.c.split == split, moved)
        found.extend(rows.image(row) for row in connection.execute(query).mappings())
    return tuple(sorted(found, key=lambda image: (image.label, image.digest, image.filename)))


def labels_of(connection: Connection, batch_ids: Collection[str], *, split: Split) -> frozenset[str]:
    """Classes of the images that some batches hold on one side of the split."""
    found: set[str] = set()
    for part in references.parts(list(batch_ids)):
        query = select(images.c.label).where(images.c.batch_id.in_(part)).where(images.c.split == split).distinct()
        found.update(connection.scalars(query))
    return frozenset(found)


def by_ids(connection: Connection, ids: Collection[str]) -> tuple[Image, ...]:
    """The images of these ids that still exist, in no particular order."""
    found: list[Image] = []
    for part in references.parts(list(ids)):
        query = select(images).where(images.c.id.in_(part))
        found.extend(rows.image(row) for row in connection.execute(query).mappings())
    return tuple(found)


def apply_retention(connection: Connection, batch_id: str, retention: Retention) -> tuple[str, ...]:
    """Delete the images of a published batch that its model's retention does not keep.

    An image that any version keeps as an exemplar stays. Returns the digests of the blobs that held deleted images.
    """
    if retention is Retention.ALL:
        return ()
    is_exemplar = exists().where(exemplars.c.image_id == images.c.id)
    going = select(images.c.id).where(images.c.batch_id == batch_id).where(~is_exemplar)
    if retention is Retention.EXEMPLARS:
        going = going.where(images.c.split == Split.TRAIN)
    return forget(connection, connection.scalars(going).all())


def forget(connection: Connection, ids: Sequence[str]) -> tuple[str, ...]:
    """Delete images, also from every set of exemplars; releases the blobs that held them and returns their digests.

    Other images in the same shards lose their packed copies; the next increment that needs them packs them again.
    """
    gone: set[str] = set()
    shards: set[str] = set()
    for part in references.parts(list(ids)):
        # Their places are read in the same statement: a pack may have been rewritten since they were read before.
        place = (images.c.digest, images.c.pack, images.c.shard)
        for digest, pack, shard in connection.execute(delete(images).where(images.c.id.in_(part)).returning(*place)):
            gone.add(pack or digest)
            shards |= {shard} - {None}
    for part in references.parts(list(shards)):
        connection.execute(update(images).where(images.c.shard.in_(part)).values(shard=None, row=None))
    references.release(connection, (*gone, *shards))
    return (*gone, *shards)


def place(connection: Connection, packed: Collection[Image]) -> frozenset[str]:
    """Record where the packed copies of images are; returns the ids of images that were erased meanwhile.

    A new shard that holds an erased image is released, and none of its images is recorded as packed. The caller holds
    the lock of their model (`leases.holds`).
    """
    gone = {image.id for image in packed} - {image.id for image in by_ids(connection, [image.id for image in packed])}
    spoilt = {image.shard for image in packed if image.id in gone and image.shard is not None}
    own = update(images).where(images.c.id == bindparam("image")).values(shard=bindparam("in"), row=bindparam("at"))
    placed = [image for image in packed if image.shard not in spoilt]
    if values := [{"image": image.id, "in": image.shard, "at": image.row} for image in placed]:
        connection.execute(own, values)
    references.release(connection, spoilt)
    return frozenset(gone)
