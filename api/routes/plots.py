"""Plots of a model's metrics, as PNG and SVG."""

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.http.conditional import is_current
from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.routes.versions import OfVersion
from api.service import Service, ServiceDep
from api.views.plots import DRAWING, Format, Material, Plot, drawn
from storage.domain import Scope
from storage.errors import ModelNotFound, NoVersionYet, VersionNotFound
from storage.history import metrics, models, versions
from storage.history.curves import curves
from storage.history.lineage import in_present_tasks

router = APIRouter(prefix="/v1/models/{name}", tags=["versions"], route_class=Guarded)

TYPES: dict[Format, str] = {"png": "image/png", "svg": "image/svg+xml"}
FAILURES = problems(ModelNotFound, VersionNotFound, NoVersionYet)
Shown = Annotated[
    Plot,
    Query(
        description="overview: curves and matrix; curves: accuracy and forgetting over versions; matrix: accuracy by "
        "task; classes: recall of each class and its change since the parent; confusion: predicted beside true classes."
    ),
]


@router.get("/metrics.png", dependencies=[needs(Scope.PREDICT)], response_class=Response, responses=FAILURES)
def get_model_metrics_picture(
    name: str, request: Request, service: ServiceDep, version: OfVersion = None, plot: Shown = Plot.OVERVIEW
) -> Response:
    """Get the metrics of a version and its ancestors as a picture (PNG)."""
    return _answer(name, request, service, version, plot, "png")


@router.get("/metrics.svg", dependencies=[needs(Scope.PREDICT)], response_class=Response, responses=FAILURES)
def get_model_metrics_drawing(
    name: str, request: Request, service: ServiceDep, version: OfVersion = None, plot: Shown = Plot.OVERVIEW
) -> Response:
    """Get the metrics of a version and its ancestors as a drawing (SVG)."""
    return _answer(name, request, service, version, plot, "svg")


def _answer(name: str, request: Request, service: Service, version: int | None, plot: Plot, form: Format) -> Response:
    material = _material(service, name, version)
    # Versions and their metrics never change, so their numbers stand for them.
    shown = (DRAWING, plot, form, material.model, list(material.versions), list(material.labels))
    tag = f'"{hashlib.sha256(json.dumps(shown).encode()).hexdigest()}"'
    if is_current(request.headers, tag):
        return Response(status_code=304, headers={"ETag": tag})  # without drawing it
    return Response(drawn(plot, material, form), media_type=TYPES[form], headers={"ETag": tag})


def _material(service: Service, name: str, number: int | None) -> Material:
    with service.database.read() as connection:
        model = models.get(connection, name)
        wanted = number if number is not None else model.head
        if wanted is None:
            raise NoVersionYet(f"Model {name!r} has no version yet, so there is nothing to draw.")
        shown = versions.get(connection, model, wanted)
        line = versions.lineage(connection, model, wanted)
        documents = [model.names.metrics(one) for one in metrics.of_versions(connection, line)]
    return Material(
        model=name,
        versions=[one.number for one in line],
        curves=curves(in_present_tasks(line, documents, every=True)),
        labels=model.names.all(shown.classes),
        document=documents[-1],
        before=documents[-2] if len(documents) > 1 else None,
    )
