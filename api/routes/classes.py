"""The classes of a model: what they are called, and which images of them are stored."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import Connection

from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.schemas.batches import ClassChange, ClassesOut, ClassOut
from api.service import ServiceDep
from storage.domain import Batch, Model, Scope
from storage.errors import ClassNameTaken, ClassNotFound, Invalid, ModelNotFound
from storage.history import classes, models, versions
from storage.labels import folded, label_fault
from storage.material import batches, browsing
from storage.requests import audit

router = APIRouter(prefix="/v1/models/{name}", tags=["models"], route_class=Guarded)

EXAMPLES = 4  # images that are named for each class


@router.get("/classes", dependencies=[needs(Scope.TRAIN)], responses=problems(ModelNotFound))
def list_classes(
    name: str,
    service: ServiceDep,
    examples: Annotated[int, Query(ge=0, le=16, description="Images to name for each class.")] = EXAMPLES,
) -> ClassesOut:
    """List a model's classes with their stored images: those of the head by task, then those not learned yet."""
    with service.database.read() as connection:
        return ClassesOut(model=name, classes=_classes(connection, models.get(connection, name), examples=examples))


@router.patch(
    "/classes/{label}",
    dependencies=[needs(Scope.TRAIN)],
    responses=problems(ModelNotFound, ClassNotFound, ClassNameTaken),
)
def rename_class(name: str, label: str, body: ClassChange, service: ServiceDep) -> ClassOut:
    """Rename a class, in all versions and at once: nothing is trained, and answers on record stay as they were."""
    new = folded(body.label)
    if (fault := label_fault(new)) is not None:
        raise Invalid(f"label {new!r} {fault}")
    with service.database.write() as connection:
        before = models.lock(connection, name)
        held = classes.rename(connection, before, folded(label), new)
        audit.record_change(connection, changed={"label": [before.names.name(held), new]})
        after = models.get(connection, name)
        (found,) = (one for one in _classes(connection, after, examples=EXAMPLES) if one.id == held)
    service.engine.registry.rename(after)
    return found


def _classes(connection: Connection, model: Model, *, examples: int) -> list[ClassOut]:
    """The classes of the head in the order of its logits, then the others by label."""
    head = versions.get(connection, model, model.head) if model.head is not None else None
    merged = head.merged if head is not None else {}
    counts = _counts(batches.of_model(connection, model), merged)
    learned = {label: task for task, labels in enumerate(head.tasks if head else ()) for label in labels}
    labels = [*learned, *sorted((counts.keys() | classes.labels(connection, model)) - learned.keys() - merged.keys())]
    found = browsing.examples(connection, model, [*labels, *merged], each=examples) if examples else {}
    shown = {
        label: [id_ for one, ids in found.items() if merged.get(one, one) == label for id_ in ids] for label in labels
    }
    return [
        ClassOut(
            label=model.names.name(label),
            id=label,
            task=learned.get(label),
            train=counts.get(label, (0, 0))[0],
            test=counts.get(label, (0, 0))[1],
            examples=shown[label][:examples],
        )
        for label in labels
    ]


def _counts(collected: tuple[Batch, ...], merged: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Images to train and to evaluate with, by class as the head knows them."""
    found: dict[str, tuple[int, int]] = {}
    for batch in collected:
        for count in batch.classes:
            label = merged.get(count.label, count.label)
            train, test = found.get(label, (0, 0))
            found[label] = (train + count.train, test + count.test)
    return found
