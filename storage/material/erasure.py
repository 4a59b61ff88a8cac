"""Erasure: deletes images with their originals and packed copies, and from every set of exemplars.

A copy of the same content that the model keeps of a prediction goes too.

Metrics that were measured with the images stay, and so does what a network has learned from them: to remove that,
delete the version. A running increment that has loaded the images already still uses them. Its next attempt and later
increments do not.

Each of these functions reads only after the model is locked. So a concurrent transaction, which adds, packs or chooses
an image or requests an increment, either has committed before, or comes later and finds the images gone.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, select, update

from storage.database import locks
from storage.database.tables import batches as batches_table
from storage.database.tables import images as images_table
from storage.domain import BatchStatus, Image, Model
from storage.errors import BatchInUse, ImageNotFound
from storage.labels import folded
from storage.material import batches, images, kept, references, rejects


def erase_image(connection: Connection, image_id: str) -> Image:
    """Erase one image; returns its record as it was. Raises `ImageNotFound`."""
    model_id = images.model_of(connection, image_id)
    locks.lock_model(connection, model_id)
    image = images.get(connection, image_id)
    images.forget(connection, [image.id])
    kept.forget_contents(connection, model_id, [image.digest])
    batches.recount(connection, [image.batch_id])
    return image


def erase_batch(connection: Connection, batch_id: str) -> int:
    """Erase a batch with all its images and its archive; returns how many images were stored.

    Raises `BatchNotFound`, and `BatchInUse` while an increment that learns from the batch is queued or runs. A batch
    that has an increment keeps its row, emptied, because the increment refers to it.
    """
    model_id = batches.get(connection, batch_id).model_id
    locks.lock_model(connection, model_id)
    batch = batches.get(connection, batch_id)
    if unfinished := batches.unfinished_of(connection, batch_id):
        raise BatchInUse(
            f"Increment {unfinished[0]} learns from batch {batch_id}: cancel it first, or wait for it.",
            increments=unfinished,
        )
    own = select(images_table.c.id, images_table.c.digest).where(images_table.c.batch_id == batch_id)
    found = connection.execute(own).all()
    images.forget(connection, [row.id for row in found])
    kept.forget_contents(connection, model_id, {row.digest for row in found})
    if batch.archive is not None:
        references.release(connection, [batch.archive])
    this = batches_table.c.id == batch_id
    if not batches.increments_of(connection, [batch_id]):
        connection.execute(delete(batches_table).where(this))
        return len(found)
    emptied: dict[str, Any] = {"archive": None, "classes": [], "ignored": [], "notes": []}
    connection.execute(update(batches_table).where(this).values(status=BatchStatus.INGESTED, **emptied))
    rejects.record(connection, batch_id, ())
    return len(found)


def erase_class(connection: Connection, model: Model, name: str, *, merged: Collection[str] = ()) -> int:
    """Erase every image of a class, in all batches of the model; returns how many there were.

    ``merged`` are the labels of classes that were merged into it. The caller holds the model's lock (`models.lock`).
    Raises `ImageNotFound` when there are none, and `BatchInUse` when an archive that is not ingested yet holds some.
    """
    held = model.names.found(name)
    spellings = {held, folded(held), *merged}  # earlier releases did not fold labels: they may have blanks
    unread = select(batches_table).where(batches_table.c.model_id == model.id, batches_table.c.archive.is_not(None))
    for batch in connection.execute(unread).mappings():
        if any(count["label"] in spellings for count in batch["classes"]):
            raise BatchInUse(
                f"The archive of batch {batch['id']} holds images of {name!r} and was not read yet: wait for its "
                "increment, or cancel it and delete the batch.",
                batch=batch["id"],
            )
    query = (
        select(images_table.c.id, images_table.c.batch_id, images_table.c.digest)
        .join(batches_table, images_table.c.batch_id == batches_table.c.id)
        .where(batches_table.c.model_id == model.id, images_table.c.label.in_(spellings))
    )
    found = connection.execute(query).all()
    if not found:
        raise ImageNotFound(f"Model {model.name!r} has no stored image of class {name!r}.")
    images.forget(connection, [row.id for row in found])
    kept.forget_contents(connection, model.id, {row.digest for row in found})
    batches.recount(connection, sorted({row.batch_id for row in found}))
    return len(found)
