"""The classes of a model: which there are, and what they are called."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, select, update

from storage.database.tables import batches, models, versions
from storage.domain import Model
from storage.errors import ClassNameTaken, ClassNotFound


def labels(connection: Connection, model: Model) -> frozenset[str]:
    """Every label of a model: of its versions, deleted ones included, and of its batches."""
    found: set[str] = set()
    for tasks in connection.scalars(select(versions.c.tasks).where(versions.c.model_id == model.id)):
        found.update(label for task in tasks for label in task)
    for counts in connection.scalars(select(batches.c.classes).where(batches.c.model_id == model.id)):
        found.update(count["label"] for count in counts)
    return frozenset(found)


def label_of(model: Model, name: str) -> str:
    """The label under which images of a class of that name are held, whether or not there is such a class yet.

    Raises `ClassNameTaken` for the former name of a renamed class: either that class is meant, or a new one.
    """
    label = model.names.label(name)
    if label is None:
        renamed = model.names.name(name)
        raise ClassNameTaken(
            f"Class {name!r} was renamed {renamed!r}: send its images as {renamed!r}, or give a new class another "
            "name.",
            classes=[name],
        )
    return label


def labels_of(model: Model, names: Iterable[str]) -> Mapping[str, str]:
    """The labels of classes that are held by another label than their name, by name; raises as `label_of` does."""
    return {name: label for name in names if (label := label_of(model, name)) != name}


def rename(connection: Connection, model: Model, name: str, new: str) -> str:
    """Call a class by another name from now on, in all versions; returns its label, which stays.

    The caller holds the model's lock and has checked that ``new`` can be a class name. Raises `ClassNotFound`, and
    `ClassNameTaken` if another class has the new name.
    """
    held = labels(connection, model)
    label = model.names.label(name)
    if label is None or label not in held:
        now = f"; it was renamed {model.names.name(name)!r}" if label is None else ""
        raise ClassNotFound(f"Model {model.name!r} has no class {name!r}{now}.")
    other = model.names.label(new)
    if new != name and other is not None and other in held:
        raise ClassNameTaken(
            f"Model {model.name!r} has another class {new!r}: choose a name of its own.", classes=[new]
        )
    renamed = {**model.names.renamed, label: new}
    if new == label:
        del renamed[label]
    connection.execute(update(models).where(models.c.id == model.id).values(names=renamed or None))
    return label
