"""Relabelling: a stored image is moved to another class, and which versions had learned from it stays on record."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select, update

from storage.database import pages, rows
from storage.database.tables import images as images_table
from storage.database.tables import increments, relabels, versions
from storage.domain import BatchStatus, Image, Model, Page, Relabel, now
from storage.errors import BatchInUse, ClassNotFound
from storage.history import classes
from storage.material import batches, images

_RECORD = [column for column in relabels.c if column.name not in {"number", "model_id"}]


@dataclass(frozen=True, slots=True)
class Relabelled:
    """An image that was moved, and the record of it; None if nothing had learned from the image, or it was there."""

    image: Image
    before: str  # label
    record: Relabel | None


def relabel(connection: Connection, model: Model, image_id: str, label: str, *, key_name: str) -> Relabelled:
    """Move an image to the class of that label; the caller holds the model's lock.

    Versions stay as they are. The next increment learns from the image, or is evaluated on it, as one of its new class.
    Raises `ImageNotFound`, `ClassNotFound` where the image was learned and the model has no class of that label, and
    `BatchInUse` while an increment that learns from its batch is queued or runs.
    """
    image = images.get(connection, image_id)
    batch = batches.get(connection, image.batch_id)
    if unfinished := batches.unfinished_of(connection, batch.id):
        raise BatchInUse(
            f"Increment {unfinished[0]} learns from this image as it is: wait for it, or cancel it first.",
            increments=unfinished,
        )
    if batch.status is BatchStatus.INGESTED and label not in classes.labels(connection, model):
        name = model.names.name(label)
        raise ClassNotFound(
            f"Model {model.name!r} has no class {name!r}: a new class comes with images of its own in an increment."
        )
    if label == image.label:
        return Relabelled(image, label, None)
    connection.execute(update(images_table).where(images_table.c.id == image.id).values(label=label))
    batches.recount(connection, [batch.id])
    learned = _versions_of(connection, model, batch.id)
    record = None
    if batch.status is BatchStatus.INGESTED:
        record = Relabel(image.id, image.label, label, image.split, learned, key_name, now())
        connection.execute(insert(relabels).values(model_id=model.id, **asdict(record)))
    return Relabelled(images.get(connection, image.id), image.label, record)


def page(connection: Connection, model: Model, *, limit: int, cursor: str | None) -> Page[Relabel]:
    """Moves of a model's images, latest first."""
    query = select(*_RECORD, relabels.c.number).where(relabels.c.model_id == model.id)
    key = relabels.c.number
    return pages.page(connection, query, key=key, read=rows.relabel, limit=limit, cursor=cursor, descending=True)


def of_version(connection: Connection, model: Model, number: int) -> tuple[Relabel, ...]:
    """Moves of images that a version had learned from, or was measured on, oldest first."""
    query = select(*_RECORD).where(relabels.c.model_id == model.id).order_by(relabels.c.number)
    found = (rows.relabel(row) for row in connection.execute(query).mappings())
    return tuple(one for one in found if number in one.versions)


def _versions_of(connection: Connection, model: Model, batch_id: str) -> tuple[int, ...]:
    """Numbers of the versions whose line of ancestors learned from a batch, deleted ones left out."""
    of_batch = set(connection.scalars(select(increments.c.id).where(increments.c.batch_id == batch_id)))
    query = select(versions.c.number, versions.c.parent, versions.c.increment_id, versions.c.deleted_at)
    found: set[int] = set()
    there: list[int] = []
    for row in connection.execute(query.where(versions.c.model_id == model.id).order_by(versions.c.number)):
        if row.increment_id in of_batch or row.parent in found:
            found.add(row.number)
            there += [row.number] if row.deleted_at is None else []
    return tuple(there)
