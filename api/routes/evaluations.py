"""Results of each evaluation image, and the comparison of two versions image by image."""

from enum import StrEnum
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query
from sqlalchemy import Connection

from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.schemas.base import Cursor, Limit
from api.schemas.evaluations import ComparisonOut, EvaluationOut, EvaluationsOut
from api.schemas.predictions import RankedOut
from api.service import Service, ServiceDep
from api.views.comparison import UNRECORDED, Side, compare
from storage import evaluations
from storage.database import pages
from storage.domain import Image, Scope, Version
from storage.errors import Invalid, ModelNotFound, VersionNotFound
from storage.evaluations import Evaluations
from storage.history import models, versions
from storage.labels import folded
from storage.material import images

router = APIRouter(prefix="/v1/models/{name}/versions/{number}", tags=["versions"], route_class=Guarded)


class Form(StrEnum):
    """How a class is predicted: the best of all (task-agnostic), or of the true task's (task-aware)."""

    TAG = "tag"
    TAW = "taw"


InForm = Annotated[Form, Query(description="tag: best of all classes; taw: best of the true task's classes.")]
OfLabel = Annotated[str | None, Query(max_length=1000, description="Only images of this class.")]
AsLabel = Annotated[str | None, Query(max_length=1000, description="Only images that were taken for this class.")]


@router.get("/evaluations", dependencies=[needs(Scope.TRAIN)], responses=problems(ModelNotFound, VersionNotFound))
def list_evaluations(
    name: str,
    number: int,
    service: ServiceDep,
    form: InForm = Form.TAG,
    label: OfLabel = None,
    predicted: AsLabel = None,
    correct: Annotated[bool | None, Query(description="Only images that it has right, or wrong.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> EvaluationsOut:
    """List what a version said of each evaluation image."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        version = model.names.version(versions.get(connection, model, number))
    if (results := _results(service, version)) is None:
        return EvaluationsOut(
            model=name,
            version=number,
            recorded=False,
            note=UNRECORDED.format(number),
            images=0,
            items=[],
            next_cursor=None,
        )
    wanted = _matching(results, version, form, label=label, predicted=predicted, correct=correct)
    page = pages.of_rows(wanted, limit=limit, cursor=cursor)
    with service.database.read() as connection:
        found = _stored(connection, results, page.items)
    items = [_shown(results, row, version.classes, found.get(results.image_id(row)), form) for row in page.items]
    return EvaluationsOut(
        model=name,
        version=number,
        recorded=True,
        note=None,
        images=len(wanted),
        items=items,
        next_cursor=page.next_cursor,
    )


@router.get("/comparison", dependencies=[needs(Scope.TRAIN)], responses=problems(ModelNotFound, VersionNotFound))
def compare_versions(
    name: str,
    number: int,
    service: ServiceDep,
    other: Annotated[int | None, Query(ge=1, alias="with", description="Another version; default: the parent.")] = None,
    form: InForm = Form.TAG,
) -> ComparisonOut:
    """Compare a version with another one, image by image: both accuracies with intervals, and what changed."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        version = versions.get(connection, model, number)
        if (beside := other if other is not None else version.parent) is None:
            raise Invalid(f"Version {number} is a first version: name the version to compare it with, as in ?with=2.")
        pair = version, versions.get(connection, model, beside)
        pair = model.names.version(pair[0]), model.names.version(pair[1])
    first, second = (Side(one, _results(service, one)) for one in pair)
    return compare(name, first, second, form=form)


def _results(service: Service, version: Version) -> Evaluations | None:
    """What a version said of its evaluation images; None if its release kept metrics alone."""
    stored = version.files.get(evaluations.FILE)
    return None if stored is None else evaluations.decoded(service.blobs.get(stored.sha256))


def _matching(
    results: Evaluations,
    version: Version,
    form: Form,
    *,
    label: str | None,
    predicted: str | None,
    correct: bool | None,
) -> list[int]:
    """Rows of the images that were asked for, ascending."""
    chosen = np.ones(len(results), dtype=bool)
    if label is not None:
        chosen &= results.targets == _index(version, label)
    if predicted is not None:
        chosen &= results.predicted(form) == _index(version, predicted)
    if correct is not None:
        chosen &= (results.predicted(form) == results.targets) == correct
    return [int(row) for row in np.flatnonzero(chosen)]


def _index(version: Version, label: str) -> int:
    """The place of a class among the logits; raises `Invalid` for one that the version does not know."""
    try:
        return version.classes.index(folded(label))
    except ValueError:
        raise Invalid(f"Version {version.number} knows no class {label!r}.") from None


def _stored(connection: Connection, results: Evaluations, rows: tuple[int, ...]) -> dict[str, Image]:
    return {image.id: image for image in images.by_ids(connection, [results.image_id(row) for row in rows])}


def _shown(results: Evaluations, row: int, classes: tuple[str, ...], image: Image | None, form: Form) -> EvaluationOut:
    target, predicted = int(results.targets[row]), int(results.predicted(form)[row])
    return EvaluationOut(
        image_id=results.image_id(row),
        filename=image.filename if image is not None else None,
        label=classes[target],
        predicted=classes[predicted],
        correct=target == predicted,
        top=[
            RankedOut(label=classes[index], probability=float(score))
            for index, score in zip(results.top[row].tolist(), results.scores[row].tolist(), strict=True)
        ],
    )
