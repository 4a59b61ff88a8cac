"""Looking through stored images: those of a batch or a model, by class, side, exemplars and name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from storage.database import pages, rows
from storage.database.tables import batches, exemplars, images
from storage.domain import Image, Model, Page, Split
from storage.material import references

_ORDER = (images.c.batch_id, images.c.id)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which images to show; None: all of them."""

    labels: frozenset[str] | None = None
    split: Split | None = None
    exemplar_of: int | None = None  # number of a version of the model
    text: str | None = None  # part of the file name; upper and lower case are the same


def of_batch(
    connection: Connection, model: Model, batch_id: str, wanted: Filter, *, limit: int, cursor: str | None
) -> Page[Image]:
    """Images of a batch of the model, in a fixed order."""
    query = _matching(select(images).where(images.c.batch_id == batch_id), model, wanted)
    return pages.page(connection, query, key=_ORDER, read=rows.image, limit=limit, cursor=cursor)


def of_model(connection: Connection, model: Model, wanted: Filter, *, limit: int, cursor: str | None) -> Page[Image]:
    """Images of a model, in a fixed order, batch by batch."""
    own = select(batches.c.id).where(batches.c.model_id == model.id)
    query = _matching(select(images).where(images.c.batch_id.in_(own)), model, wanted)
    return pages.page(connection, query, key=_ORDER, read=rows.image, limit=limit, cursor=cursor)


def examples(
    connection: Connection, model: Model, labels: Collection[str], *, each: int
) -> Mapping[str, tuple[str, ...]]:
    """Ids of at most ``each`` images of every class: first what the version in service keeps as exemplars, by rank.

    Classes without a stored image are left out.
    """
    found: dict[str, list[str]] = {}
    kept = (
        select(images.c.label, images.c.id)
        .join(exemplars, exemplars.c.image_id == images.c.id)
        .where(exemplars.c.model_id == model.id, exemplars.c.version == model.current, exemplars.c.rank < each)
        .order_by(exemplars.c.rank)
    )
    for label, image_id in connection.execute(kept):
        found.setdefault(label, []).append(image_id)
    own = select(batches.c.id).where(batches.c.model_id == model.id)
    place = func.row_number().over(partition_by=images.c.label, order_by=images.c.id).label("place")
    missing = [label for label in labels if len(found.get(label, ())) < each]
    for part in references.parts(missing):
        placed = select(images.c.label, images.c.id, place).where(images.c.batch_id.in_(own), images.c.label.in_(part))
        some = placed.subquery()
        # Of the first, some may be named already.
        for label, image_id in connection.execute(select(some.c.label, some.c.id).where(some.c.place <= 2 * each)):
            if image_id not in (ids := found.setdefault(label, [])) and len(ids) < each:
                ids.append(image_id)
    return {label: tuple(ids) for label, ids in found.items()}


def _matching(query: Select[Any], model: Model, wanted: Filter) -> Select[Any]:
    if wanted.labels is not None:
        query = query.where(images.c.label.in_(wanted.labels))
    if wanted.split is not None:
        query = query.where(images.c.split == wanted.split)
    if wanted.text is not None:
        query = query.where(images.c.filename.icontains(wanted.text, autoescape=True))
    if wanted.exemplar_of is not None:
        of_version = (exemplars.c.model_id == model.id) & (exemplars.c.version == wanted.exemplar_of)
        query = query.where(images.c.id.in_(select(exemplars.c.image_id).where(of_version)))
    return query
