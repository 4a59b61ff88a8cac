"""Edits, as users request them: a version without training, queued and made like any other."""

from typing import Any

from sqlalchemy import Connection, insert

from storage.database.tables import increments
from storage.domain import (
    AS_HELD,
    Edit,
    EditedTasks,
    Increment,
    IncrementStatus,
    KnownClasses,
    Merge,
    Model,
    Names,
    Promotion,
    Version,
    new_id,
    now,
)
from storage.errors import ClassNameTaken, EditInvalid, NoVersionYet
from storage.history import classes, versions
from storage.requests import idempotency
from storage.requests.idempotency import Asked
from storage.work import events
from storage.work.increments import get


def request(
    connection: Connection,
    model: Model,
    edit: Edit,
    *,
    promote: Promotion,
    idempotency_key: str | None = None,
    asked: Asked | None = None,
) -> Increment:
    """Queue an edit of a model's head; the caller holds the model's lock (`models.lock`).

    It is checked again when it is claimed, against the head of that time. Raises `NoVersionYet`, `EditInvalid`, and
    `ClassNameTaken` where a merged class would have the label of another class of the model.
    """
    if model.head is None:
        raise NoVersionYet(f"Model {model.name!r} has no version yet, so there is nothing to edit.")
    head = versions.get(connection, model, model.head)
    applied(edit, head, names=model.names)
    taken = sorted((edit.made - set(head.classes)) & classes.labels(connection, model))
    if taken:
        name = model.names.name(taken[0])
        raise ClassNameTaken(
            f"Model {model.name!r} has, or had, a class {name!r}: choose another name.", classes=[name]
        )
    values: dict[str, Any] = {
        "id": new_id(),
        "model_id": model.id,
        "batch_id": None,
        "status": IncrementStatus.QUEUED,
        "strategy": head.strategy,
        "recipe": dict(head.recipe),
        "promote": promote,
        "known_classes": KnownClasses.REFUSE,
        "idempotency_key": idempotency_key,
        "asked": idempotency.fingerprint(asked) if asked is not None else None,
        "edit": edit.to_json(),
        "created_at": now(),
    }
    connection.execute(insert(increments).values(values))
    events.add_status(connection, values["id"], IncrementStatus.QUEUED)
    return get(connection, values["id"])


def applied(edit: Edit, version: Version, *, names: Names = AS_HELD) -> EditedTasks:
    """The tasks that an edit makes of a version's; raises `EditInvalid`, which calls classes by their names."""
    named = Edit(names.all(edit.drop), tuple(Merge(names.all(one.labels), names.name(one.into)) for one in edit.merge))
    try:
        named.applied([names.all(task) for task in version.tasks])
    except ValueError as error:
        raise EditInvalid(f"Version {version.number} cannot be edited so: {error}.") from error
    return edit.applied(version.tasks)
