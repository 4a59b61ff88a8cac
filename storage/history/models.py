"""The models: named classifiers, and which of their versions is head, current and previous."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.database import pages, rows
from storage.database.tables import increments, models
from storage.database.tables import versions as versions_table
from storage.domain import (
    UNFINISHED,
    KeepPredictions,
    Key,
    Memory,
    Model,
    Page,
    PromotionRecord,
    Retention,
    new_id,
    now,
)
from storage.errors import ModelBusy, ModelExists, ModelNotFound, PreconditionFailed
from storage.history import promotions, versions
from storage.material import kept, references
from storage.requests import audit


def create(
    connection: Connection,
    *,
    name: str,
    network: str,
    image_size: int,
    channels: int,
    strategy: str,
    recipe: Mapping[str, Any],
    memory: Memory | None,
    retention: Retention,
    keep_predictions: KeepPredictions = KeepPredictions.NONE,
) -> Model:
    """Add a model without versions; raises `ModelExists` when the name is taken."""
    values = {
        "id": new_id(),
        "name": name,
        "network": network,
        "image_size": image_size,
        "channels": channels,
        "strategy": strategy,
        "recipe": dict(recipe),
        "memory": asdict(memory) if memory is not None else None,
        "retention": retention,
        "keep_predictions": keep_predictions,
        "created_at": now(),
    }
    try:
        connection.execute(insert(models).values(values))
    except IntegrityError as error:
        raise ModelExists(f"There is a model named {name!r} already: choose another name, or use that one.") from error
    return get(connection, name)


def get(connection: Connection, name: str) -> Model:
    """The model of that name; raises `ModelNotFound`."""
    row = connection.execute(select(models).where(models.c.name == name)).mappings().one_or_none()
    if row is None:
        raise ModelNotFound(f"There is no model named {name!r}: create it with POST /v1/models.")
    return rows.model(row)


def by_id(connection: Connection, model_id: str) -> Model:
    """The model of that id; raises `ModelNotFound` when it was deleted meanwhile."""
    if (model := find(connection, model_id)) is None:
        raise ModelNotFound("The model was deleted.")
    return model


def find(connection: Connection, model_id: str) -> Model | None:
    """The model of that id, or None when it was deleted."""
    row = connection.execute(select(models).where(models.c.id == model_id)).mappings().one_or_none()
    return rows.model(row) if row is not None else None


def of_ids(connection: Connection, ids: Collection[str]) -> list[Model]:
    """The models of these ids that are still there."""
    if not ids:
        return []
    found = connection.execute(select(models).where(models.c.id.in_(ids))).mappings()
    return [rows.model(row) for row in found]


def recently_trained(connection: Connection, *, limit: int) -> list[Model]:
    """Models with a version in service, ordered by the age of their newest version, youngest first."""
    newest = select(func.max(versions_table.c.created_at)).where(versions_table.c.model_id == models.c.id)
    query = select(models).where(models.c.current.is_not(None)).order_by(newest.scalar_subquery().desc()).limit(limit)
    return [rows.model(row) for row in connection.execute(query).mappings()]


def lock(connection: Connection, name: str) -> Model:
    """The model, with its row locked until the transaction ends: its history is changed by one transaction at a time.

    Raises `ModelNotFound`.
    """
    row = connection.execute(select(models).where(models.c.name == name).with_for_update()).mappings().one_or_none()
    return rows.model(row) if row is not None else get(connection, name)


def page(connection: Connection, *, limit: int, cursor: str | None) -> Page[Model]:
    """Models in the order of their names."""
    return pages.page(connection, select(models), key=models.c.name, read=rows.model, limit=limit, cursor=cursor)


def change(connection: Connection, name: str, values: Mapping[str, Any]) -> Model:
    """Set new defaults for future increments; existing versions keep the values that they were made with.

    A model that keeps no images of predictions from now on lets go of those that it has.
    """
    model = lock(connection, name)
    if values:
        connection.execute(update(models).where(models.c.id == model.id).values(**values))
    if values.get("keep_predictions") == KeepPredictions.NONE:
        kept.forget_model(connection, model.id)
    return get(connection, name)


def delete_model(connection: Connection, name: str) -> None:
    """Remove a model with all its history; raises `ModelBusy` while increments of it are not finished."""
    model = lock(connection, name)
    unfinished = connection.scalars(
        select(increments.c.id).where(increments.c.model_id == model.id).where(increments.c.status.in_(UNFINISHED))
    ).all()
    if unfinished:
        raise ModelBusy(
            f"Model {name!r} has unfinished increments: cancel them first, or wait for them.",
            increments=list(unfinished),
        )
    references.release(connection, references.of_model(connection, model.id))
    connection.execute(delete(models).where(models.c.id == model.id))


def promote(
    connection: Connection,
    name: str,
    *,
    version: int,
    expected_revision: int | None = None,
    key: Key | None = None,
    reason: str | None = None,
) -> Model:
    """Put a version into service and make it the head; the version that was in service becomes the previous one.

    ``key`` is that of the person who asks, None where no key is needed. Compare-and-set: with ``expected_revision``,
    raises `PreconditionFailed` if there was another promotion after that revision was read. Raises `VersionNotFound`,
    also for a deleted version.
    """
    model = lock(connection, name)
    check_revision(model, expected_revision)
    versions.get(connection, model, version)
    if model.current == version and model.head == version:
        return model
    name_of_key = key.name if key is not None else audit.NOBODY
    set_current(connection, model, version, key_id=key.id if key else None, key_name=name_of_key, reason=reason)
    return get(connection, name)


def check_revision(model: Model, expected: int | None) -> None:
    """Raise `PreconditionFailed` if there was another promotion after that revision was read; None accepts any."""
    if expected is not None and expected != model.current_revision:
        raise PreconditionFailed(
            f"Somebody has promoted another version of {model.name!r} meanwhile: current is {model.current}. "
            "Read /current again and decide again.",
            current=model.current,
        )


def set_current(
    connection: Connection,
    model: Model,
    version: int,
    *,
    key_id: str | None = None,
    key_name: str | None = None,
    increment_id: str | None = None,
    reason: str | None = None,
) -> None:
    """Write a promotion and the record of it; the caller holds the model's lock and has checked the version."""
    previous = model.previous if model.current == version else model.current
    revision = model.current_revision + 1
    connection.execute(
        update(models)
        .where(models.c.id == model.id)
        .values(current=version, head=version, previous=previous, current_revision=revision)
    )
    made = PromotionRecord(
        revision=revision,
        version=version,
        previous=model.current,
        key_id=key_id,
        key_name=key_name,
        increment_id=increment_id,
        reason=reason,
        created_at=now(),
    )
    promotions.record(connection, model, made)
