"""Publishing: a trained network becomes a version, in one transaction or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, update

from storage.database.tables import increments
from storage.database.tables import models as models_table
from storage.domain import Increment, IncrementStatus, Model, Promotion, StoredFile, Version, now
from storage.history import metrics, models, versions
from storage.material import exemplars, images
from storage.work import editing, leases
from storage.work.increments import get as get_increment
from storage.work.leases import Claim


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attempt; its files are in the blob store already."""

    number: int  # as written into version.json
    parent: int | None
    tasks: Sequence[Sequence[str]]
    files: Mapping[str, StoredFile]
    data_digest: str
    code_version: str
    seconds: Mapping[str, float]
    metrics: Mapping[str, Any]
    exemplars: Mapping[str, Sequence[str]]  # image ids by label, most wanted first


@dataclass(frozen=True, slots=True)
class Published:
    """The new version, and the blobs of the images that retention has deleted."""

    version: Version
    forgotten: tuple[str, ...]  # digests


def publish(connection: Connection, held: Claim, outcome: Outcome) -> Published | None:
    """Write the version, move the head, promote, apply retention.

    Returns None when the claim is lost or a cancellation was requested: that request was answered with success, so it
    must take effect. The head moves only if it is still the version's parent. The version is promoted automatically
    only if the current version is still its parent (DESIGN, Words). The model is locked from the beginning
    (`leases.holds`), so no other transaction promotes or erases meanwhile.
    """
    if not leases.holds(connection, held) or get_increment(connection, held.increment_id).cancel_requested:
        return None
    increment = get_increment(connection, held.increment_id)
    model = models.by_id(connection, increment.model_id)
    if outcome.number != model.last_version + 1:
        raise AssertionError(f"version {outcome.number} after {model.last_version}: numbers must not have gaps")
    version = _version(connection, increment, outcome)
    versions.add(connection, version)
    metrics.add(connection, model_id=model.id, version=version.number, document=outcome.metrics)
    exemplars.add(connection, model_id=model.id, version=version.number, chosen=outcome.exemplars)
    head = version.number if model.head == outcome.parent else model.head
    connection.execute(
        update(models_table).where(models_table.c.id == model.id).values(last_version=version.number, head=head)
    )
    note = _why_not_promoted(increment, model, outcome.parent)
    if note is None:
        models.set_current(connection, model, version.number, increment_id=increment.id)
    connection.execute(
        update(increments)
        .where(held.row)
        .values(parent=outcome.parent, version=version.number, promoted=note is None, note=note)
    )
    leases.end(connection, held, IncrementStatus.SUCCEEDED)
    if increment.batch_id is None:
        return Published(version, ())
    return Published(version, images.apply_retention(connection, increment.batch_id, model.retention))


def next_number(model: Model) -> int:
    """The number the next version of a model gets; its increments run one after another, so it is known beforehand."""
    return model.last_version + 1


def _version(connection: Connection, increment: Increment, outcome: Outcome) -> Version:
    parent = versions.find(connection, increment.model_id, outcome.parent) if outcome.parent is not None else None
    edit, strategy, recipe = None, increment.strategy, increment.recipe
    merged = parent.merged if parent is not None else {}
    if increment.edit is not None:
        assert parent is not None  # an edit is of a head
        edit = {**increment.edit.to_json(), "tasks": list(editing.applied(increment.edit, parent).origins)}
        merged, strategy, recipe = increment.edit.merged(merged), parent.strategy, parent.recipe
    return Version(
        model_id=increment.model_id,
        number=outcome.number,
        parent=outcome.parent,
        increment_id=increment.id,
        tasks=tuple(tuple(task) for task in outcome.tasks),
        strategy=strategy,
        recipe=recipe,
        files=outcome.files,
        data_digest=outcome.data_digest,
        code_version=outcome.code_version,
        seconds=outcome.seconds,
        created_at=now(),
        edit=edit,
        merged=merged,
    )


def _why_not_promoted(increment: Increment, model: Model, parent: int | None) -> str | None:
    if increment.promote is Promotion.MANUAL:
        return "promote=manual"
    if model.current != parent:
        return f"current is {_named(model.current)}, not the parent, {_named(parent)}"
    return None


def _named(version: int | None) -> str:
    return f"version {version}" if version is not None else "no version"
