"""The stored images: what a batch holds, what a version is measured on, and what may go."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, delete, exists, select

from storage import rows
from storage.domain import Image, Retention, Split
from storage.errors import ImageNotFound
from storage.tables import batches, exemplars, images


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
    """Images of a batch by label and content, an order that depends on nothing but the images themselves."""
    query = select(images).where(images.c.batch_id == batch_id)
    if split is not None:
        query = query.where(images.c.split == split)
    found = (rows.image(row) for row in connection.execute(query).mappings())
    kept = [image for image in found if labels is None or image.label in labels]
    return tuple(sorted(kept, key=lambda image: (image.label, image.digest, image.filename)))


def by_ids(connection: Connection, ids: Collection[str]) -> tuple[Image, ...]:
    """Those of the images that are still there, in no particular order."""
    wanted = list(ids)
    found: list[Image] = []
    for start in range(0, len(wanted), 500):  # SQLite bounds the variables of one statement
        query = select(images).where(images.c.id.in_(wanted[start : start + 500]))
        found.extend(rows.image(row) for row in connection.execute(query).mappings())
    return tuple(found)


def apply_retention(connection: Connection, batch_id: str, retention: Retention) -> tuple[str, ...]:
    """Forget what a published batch need not keep; returns the digests of the images that went.

    An image that any version keeps as an exemplar stays.
    """
    if retention is Retention.ALL:
        return ()
    is_exemplar = exists().where(exemplars.c.image_id == images.c.id)
    going = select(images.c.id, images.c.digest).where(images.c.batch_id == batch_id).where(~is_exemplar)
    if retention is Retention.EXEMPLARS:
        going = going.where(images.c.split == Split.TRAIN)
    found = connection.execute(going).all()
    forget(connection, [row.id for row in found])
    return tuple(row.digest for row in found)


def forget(connection: Connection, ids: Sequence[str]) -> None:
    """Remove images, and themselves from every set of exemplars."""
    for start in range(0, len(ids), 500):
        connection.execute(delete(images).where(images.c.id.in_(ids[start : start + 500])))


def unreferenced(connection: Connection, digests: Collection[str]) -> frozenset[str]:
    """Those of the contents that no image row refers to any more."""
    wanted = list(set(digests))
    referred: set[str] = set()
    for start in range(0, len(wanted), 500):
        query = select(images.c.digest).where(images.c.digest.in_(wanted[start : start + 500]))
        referred.update(connection.scalars(query))
    return frozenset(wanted) - referred
