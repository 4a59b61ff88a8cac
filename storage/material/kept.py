"""Images of predictions that a model keeps beside the records: at most so many bytes, the latest.

A writer holds the lock of the model. So the bytes are added up right when many processes write at once, and nothing is
added to a model that has just been told to keep nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, tuple_

from storage.database import locks, rows
from storage.database.prediction_tables import kept
from storage.database.tables import models
from storage.domain import KeepPredictions, KeptImage
from storage.errors import PredictionNotFound
from storage.material import references

_PIECE = 100  # images looked at together, of those that are too many


def add(
    connection: Connection, images: Sequence[KeptImage], *, most_bytes: int, exists: Callable[[str], bool]
) -> tuple[str, ...]:
    """Keep images of one model, whose blobs are stored and whose records are written; the oldest go beyond the bound.

    Nothing is added if the model keeps none. Returns the digests of blobs that were deleted just before; the caller has
    to put them again.
    """
    model_id = images[0].model_id
    locks.lock_model(connection, model_id)
    choice = connection.scalar(select(models.c.keep_predictions).where(models.c.id == model_id))
    digests = {image.digest for image in images}
    if choice != KeepPredictions.ALL:
        references.release(connection, digests)
        return ()
    connection.execute(insert(kept), [asdict(image) for image in images])
    deleted = references.keep(connection, digests, exists=exists)
    _forget_oldest(connection, model_id, most_bytes)
    return deleted


def get(connection: Connection, prediction_id: str, position: int) -> KeptImage:
    """One image of a prediction; raises `PredictionNotFound` when it is not kept."""
    query = select(kept).where(kept.c.prediction_id == prediction_id, kept.c.position == position)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise PredictionNotFound(
            f"Of prediction {prediction_id!r}, image {position} is not kept: `kept` of its record names those that are."
        )
    return rows.kept_image(row)


def positions(connection: Connection, prediction_ids: Collection[str]) -> Mapping[str, tuple[int, ...]]:
    """Positions of the images that are kept of some predictions, by id; predictions without one are left out."""
    found: dict[str, tuple[int, ...]] = {}
    for part in references.parts(list(prediction_ids)):
        query = select(kept.c.prediction_id, kept.c.position).where(kept.c.prediction_id.in_(part))
        for name, position in connection.execute(query.order_by(kept.c.prediction_id, kept.c.position)):
            found[name] = (*found.get(name, ()), position)
    return found


def forget_model(connection: Connection, model_id: str) -> None:
    """Let go of every image of a model; the caller holds its lock."""
    _forget(connection, kept.c.model_id == model_id)


def forget_predictions(connection: Connection, prediction_ids: Collection[str]) -> None:
    """Let go of the images of some predictions, before their records are deleted."""
    for part in references.parts(list(prediction_ids)):
        _forget(connection, kept.c.prediction_id.in_(part))


def forget_images(connection: Connection, places: Sequence[tuple[str, int]]) -> None:
    """Let go of the images at some places: the id of a prediction, and a position."""
    for part in references.parts(places):
        _forget(connection, tuple_(kept.c.prediction_id, kept.c.position).in_(part))


def forget_contents(connection: Connection, model_id: str, digests: Collection[str]) -> None:
    """Let go of a model's images of these contents; the caller holds its lock."""
    for part in references.parts(sorted(digests)):
        _forget(connection, (kept.c.model_id == model_id) & kept.c.digest.in_(part))


def _forget_oldest(connection: Connection, model_id: str, most_bytes: int) -> None:
    own = kept.c.model_id == model_id
    excess = (connection.scalar(select(func.sum(kept.c.size)).where(own)) or 0) - most_bytes
    place = (kept.c.prediction_id, kept.c.position)
    oldest = select(*place, kept.c.size).where(own).order_by(kept.c.created_at, *place).limit(_PIECE)
    while excess > 0:
        going: list[tuple[str, int]] = []
        for name, position, size in connection.execute(oldest):
            if excess > 0:
                going.append((name, position))
                excess -= size
        forget_images(connection, going)


def _forget(connection: Connection, these: ColumnElement[bool]) -> None:
    references.release(connection, connection.scalars(delete(kept).where(these).returning(kept.c.digest)).all())
