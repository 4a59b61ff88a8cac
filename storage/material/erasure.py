"""Erasure: images taken back, from their originals, packed copies and every set of exemplars.

What was measured with them stays, and so does what a network has learned: to take that back, delete the version.
An increment that has its images loaded already goes on with them; the next one, or another attempt, does without.
Each takes the model's lock before it looks: an image that is being added, packed or chosen as an exemplar, and an
increment that is being asked for, are there when it looks, or come after it and find the images gone.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select, update

from storage.database import locks
from storage.database.tables import batches as batches_table
from storage.database.tables import images as images_table
from storage.database.tables import increments
from storage.domain import BatchStatus, IncrementStatus, Model
from storage.errors import BatchInUse, ImageNotFound
from storage.labels import folded
from storage.material import batches, images, references, rejects

_UNFINISHED = (IncrementStatus.QUEUED, IncrementStatus.RUNNING)


def erase_image(connection: Connection, image_id: str) -> None:
    """Take one image back; raises `ImageNotFound`."""
    locks.lock_model(connection, images.model_of(connection, image_id))
    image = images.get(connection, image_id)
    images.forget(connection, [image.id])
    batches.recount(connection, [image.batch_id])


def erase_batch(connection: Connection, batch_id: str) -> None:
    """Take a batch back with all its images and its archive; raises `BatchNotFound` and `BatchInUse`.

    A batch that an increment came from keeps its row, empty: the increment's history refers to it.
    """
    locks.lock_model(connection, batches.get(connection, batch_id).model_id)
    batch = batches.get(connection, batch_id)
    owners = select(increments.c.id, increments.c.status).where(increments.c.batch_id == batch_id)
    statuses: dict[str, str] = {row.id: row.status for row in connection.execute(owners)}
    if unfinished := sorted(name for name, status in statuses.items() if status in _UNFINISHED):
        raise BatchInUse(
            f"Increment {unfinished[0]} learns from batch {batch_id}: cancel it first, or wait for it.",
            increments=unfinished,
        )
    images.forget(connection, _ids_of_batch(connection, batch_id))
    if batch.archive is not None:
        references.release(connection, [batch.archive])
    this = batches_table.c.id == batch_id
    if not statuses:
        connection.execute(delete(batches_table).where(this))
        return
    emptied: dict[str, Any] = {"archive": None, "classes": [], "ignored": [], "notes": []}
    connection.execute(update(batches_table).where(this).values(status=BatchStatus.INGESTED, **emptied))
    rejects.record(connection, batch_id, ())


def erase_class(connection: Connection, model: Model, label: str) -> int:
    """Take every image of a class back, whichever batch it came with; how many there were.

    ``model`` is locked by the caller (`models.lock`). Raises `ImageNotFound` where there is none, and `BatchInUse`
    where an archive that is still to be read holds some.
    """
    spellings = {label, folded(label)}  # batches of earlier releases have blanks in their labels
    unread = select(batches_table).where(batches_table.c.model_id == model.id, batches_table.c.archive.is_not(None))
    for batch in connection.execute(unread).mappings():
        if any(count["label"] in spellings for count in batch["classes"]):
            raise BatchInUse(
                f"The archive of batch {batch['id']} holds images of {label!r} and was not read yet: wait for its "
                "increment, or cancel it and delete the batch.",
                batch=batch["id"],
            )
    query = (
        select(images_table.c.id, images_table.c.batch_id)
        .join(batches_table, images_table.c.batch_id == batches_table.c.id)
        .where(batches_table.c.model_id == model.id, images_table.c.label.in_(spellings))
    )
    found: Sequence[tuple[str, str]] = [(row.id, row.batch_id) for row in connection.execute(query)]
    if not found:
        raise ImageNotFound(f"Model {model.name!r} has no stored image of class {label!r}.")
    images.forget(connection, [image for image, _ in found])
    batches.recount(connection, sorted({batch for _, batch in found}))
    return len(found)


def _ids_of_batch(connection: Connection, batch_id: str) -> Sequence[str]:
    return connection.scalars(select(images_table.c.id).where(images_table.c.batch_id == batch_id)).all()
