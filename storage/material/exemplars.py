"""The exemplars: references to old images that a version keeps for rehearsal, ranked within their class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from sqlalchemy import Connection, delete, exists, insert, select

from storage.database import rows
from storage.database.tables import exemplars, images
from storage.domain import Image, Model, Retention
from storage.material import images as stored_images


def add(connection: Connection, *, model_id: str, version: int, chosen: Mapping[str, Sequence[str]]) -> None:
    """Write a version's exemplars: image ids by label, most wanted first; images erased meanwhile are left out."""
    wanted = [image_id for ids in chosen.values() for image_id in ids]
    still_there = {image.id for image in stored_images.by_ids(connection, wanted)}
    values = [
        {"model_id": model_id, "version": version, "image_id": image_id, "rank": rank}
        for ids in chosen.values()
        for rank, image_id in enumerate(ids)
        if image_id in still_there
    ]
    if values:
        connection.execute(insert(exemplars), values)


def of_version(
    connection: Connection, *, model_id: str, version: int, merged: Mapping[str, str] = MappingProxyType({})
) -> tuple[Image, ...]:
    """A version's exemplars by class and rank, without images that were erased meanwhile.

    ``merged`` are the version's: by the label of an image, another class that the version knows it as.
    """
    query = (
        select(images)
        .join(exemplars, exemplars.c.image_id == images.c.id)
        .where(exemplars.c.model_id == model_id)
        .where(exemplars.c.version == version)
        .order_by(exemplars.c.rank)
    )
    found = [rows.image(row) for row in connection.execute(query).mappings()]
    held = (replace(image, label=merged.get(image.label, image.label)) for image in found)
    return tuple(sorted(held, key=lambda image: image.label))  # not in SQL: databases collate differently


def release(connection: Connection, *, model: Model, version: int) -> tuple[str, ...]:
    """Delete a version's set of exemplars, and the images that were kept only for it.

    Returns the digests of the blobs that held these images.
    """
    other = exemplars.alias("other")
    is_kept = exists().where(other.c.image_id == images.c.id, other.c.version != version)
    this = (exemplars.c.model_id == model.id) & (exemplars.c.version == version)
    query = select(images.c.id).join(exemplars, exemplars.c.image_id == images.c.id).where(this)
    going = [] if model.retention is Retention.ALL else connection.scalars(query.where(~is_kept)).all()
    connection.execute(delete(exemplars).where(this))
    return stored_images.forget(connection, going)
