"""The batches: uploaded labelled images, from the first byte to their decoded, split and counted state."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from storage.database import pages, rows
from storage.database.tables import batches, images, increments
from storage.domain import (
    UNFINISHED,
    Batch,
    BatchStatus,
    ClassCount,
    Ignored,
    Image,
    Model,
    Pack,
    Page,
    Reject,
    Split,
    new_id,
    now,
)
from storage.errors import BatchClosed, BatchNotFound
from storage.material import packs, references
from storage.material import rejects as bad_files


def create(
    connection: Connection,
    *,
    model_id: str,
    archive: str | None = None,
    archive_kind: str | None = None,
    classes: Sequence[ClassCount] = (),
    rejects: Sequence[Reject] = (),
    ignored: Sequence[Ignored] = (),
    notes: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Batch:
    """Add a batch: closed if it has an archive, otherwise open and empty, to be filled image by image."""
    batch_id = new_id()
    connection.execute(
        insert(batches).values(
            id=batch_id,
            model_id=model_id,
            status=BatchStatus.CLOSED if archive is not None else BatchStatus.OPEN,
            archive=archive,
            archive_kind=archive_kind,
            fingerprint=archive,
            classes=rows.as_json(classes),
            ignored=rows.as_json(ignored),
            notes=list(notes),
            labels=dict(labels) if labels else None,
            created_at=now(),
        )
    )
    bad_files.record(connection, batch_id, rejects)
    return get(connection, batch_id)


def get(connection: Connection, batch_id: str) -> Batch:
    """The batch of that id; raises `BatchNotFound`."""
    row = connection.execute(select(batches).where(batches.c.id == batch_id)).mappings().one_or_none()
    if row is None:
        raise BatchNotFound(f"There is no batch {batch_id!r}.")
    return rows.batch(row)


def of_increments(connection: Connection, increment_ids: Collection[str]) -> Mapping[str, Batch]:
    """The batch that each increment learns from, by increment id; increments that do not exist are left out."""
    own = increments.c.id.label("increment_id")
    found: dict[str, Batch] = {}
    for part in references.parts(list(increment_ids)):
        query = select(batches, own).join(increments, increments.c.batch_id == batches.c.id).where(own.in_(part))
        for row in connection.execute(query).mappings():
            batch: Any = {name: value for name, value in row.items() if name != own.name}
            found[row[own]] = rows.batch(batch)
    return found


def page(connection: Connection, model: Model, *, limit: int, cursor: str | None) -> Page[Batch]:
    """Batches of a model, latest first."""
    query = select(batches).where(batches.c.model_id == model.id)
    key = (batches.c.created_at, batches.c.id)
    return pages.page(connection, query, key=key, read=rows.batch, limit=limit, cursor=cursor, descending=True)


def of_model(connection: Connection, model: Model) -> tuple[Batch, ...]:
    """All batches of a model, oldest first."""
    query = select(batches).where(batches.c.model_id == model.id).order_by(batches.c.created_at, batches.c.id)
    return tuple(rows.batch(row) for row in connection.execute(query).mappings())


def unfinished_of(connection: Connection, batch_id: str) -> list[str]:
    """Ids of the increments that learn from a batch and are queued or run."""
    query = select(increments.c.id).where(increments.c.batch_id == batch_id, increments.c.status.in_(UNFINISHED))
    return sorted(connection.scalars(query))


def increments_of(connection: Connection, batch_ids: Collection[str]) -> Mapping[str, str]:
    """Ids of the increments that learn from some batches, by batch id; batches without one are left out."""
    if not batch_ids:
        return {}
    query = select(increments.c.batch_id, increments.c.id).where(increments.c.batch_id.in_(batch_ids))
    return {row.batch_id: row.id for row in connection.execute(query)}


def get_of_model(connection: Connection, model: Model, batch_id: str) -> Batch:
    """The batch of that id, if it was collected for this model; raises `BatchNotFound`."""
    batch = get(connection, batch_id)
    if batch.model_id != model.id:
        raise BatchNotFound(f"Batch {batch_id!r} was not collected for model {model.name!r}.")
    return batch


def add_images(connection: Connection, batch_id: str, added: Sequence[Image]) -> Batch:
    """Put images into an open batch and bring its counts up to date; raises `BatchClosed`."""
    batch = _lock(connection, batch_id)
    if batch.status is not BatchStatus.OPEN:
        raise BatchClosed(f"Batch {batch_id} is {batch.status}: start a new one with POST /v1/models/…/batches.")
    _insert(connection, added)
    recount(connection, [batch_id])
    return get(connection, batch_id)


def close(connection: Connection, batch_id: str) -> Batch:
    """Close a batch for an increment: it takes no more images; raises `BatchClosed` if it has an increment already."""
    batch = _lock(connection, batch_id)
    owner = connection.scalar(select(increments.c.id).where(increments.c.batch_id == batch_id))
    if owner is not None:
        raise BatchClosed(
            f"Batch {batch_id} belongs to increment {owner}: retry that one, or upload the images again.",
            increment=owner,
        )
    if batch.status is BatchStatus.OPEN:
        connection.execute(update(batches).where(batches.c.id == batch_id).values(status=BatchStatus.CLOSED))
    return get(connection, batch_id)


def record_ingestion(
    connection: Connection,
    batch_id: str,
    *,
    ingested: Sequence[Image],
    rejects: Sequence[Reject],
    digest: str,
    written: Sequence[Pack] = (),
) -> Batch:
    """Write the decoded images and the rejects, replacing those of an earlier attempt; releases the archive."""
    batch = get(connection, batch_id)
    before = select(images.c.digest).where(images.c.batch_id == batch_id).where(images.c.pack.is_(None))
    left_out = set(connection.scalars(before)) - {image.digest for image in ingested if image.pack is None}
    references.release(connection, left_out | ({batch.archive} if batch.archive is not None else set()))
    connection.execute(delete(images).where(images.c.batch_id == batch_id))
    _insert(connection, ingested)
    packs.record(connection, written)
    connection.execute(
        update(batches)
        .where(batches.c.id == batch_id)
        .values(
            status=BatchStatus.INGESTED,
            archive=None,
            classes=rows.as_json(_count(connection, [batch_id])[batch_id]),
            digest=digest,
        )
    )
    bad_files.record(connection, batch_id, rejects)
    return get(connection, batch_id)


def recount(connection: Connection, batch_ids: Collection[str]) -> None:
    """Update the class counts of some batches from the images that are left."""
    counts = bindparam("counts", type_=batches.c.classes.type)
    own = update(batches).where(batches.c.id == bindparam("batch")).values(classes=counts)
    counted = _count(connection, batch_ids)
    if values := [{"batch": batch_id, "counts": rows.as_json(found)} for batch_id, found in counted.items()]:
        connection.execute(own, values)


def _lock(connection: Connection, batch_id: str) -> Batch:
    row = connection.execute(select(batches).where(batches.c.id == batch_id).with_for_update()).mappings().one_or_none()
    return rows.batch(row) if row is not None else get(connection, batch_id)


def _insert(connection: Connection, added: Iterable[Image]) -> None:
    if values := rows.as_json(list(added)):
        connection.execute(insert(images), values)


def _count(connection: Connection, batch_ids: Collection[str]) -> dict[str, list[ClassCount]]:
    """The class counts of each batch, by batch id; a batch without images has none."""
    found: dict[str, list[ClassCount]] = {batch_id: [] for batch_id in batch_ids}
    test = func.count().filter(images.c.split == Split.TEST)
    query = select(images.c.batch_id, images.c.label, func.count(), test).group_by(images.c.batch_id, images.c.label)
    for part in references.parts(list(batch_ids)):
        for batch_id, label, total, tested in connection.execute(query.where(images.c.batch_id.in_(part))):
            found[batch_id].append(ClassCount(label=label, train=total - tested, test=tested))
    return {batch_id: sorted(counts, key=lambda count: count.label) for batch_id, counts in found.items()}
