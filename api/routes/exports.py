"""What leaves the service with a version: its card, and its graph in one file with all that is needed to use it."""

import hashlib
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.service import Service, ServiceDep
from api.views import exports
from api.views.cards import Subject, card
from storage.domain import Model, Scope, Version
from storage.errors import ModelNotFound, NotFound, VersionNotFound
from storage.history import metrics, models, versions
from storage.material import batches
from storage.work import relabelling
from trainer.networks.manifest import EXECUTABLE, MANIFEST

router = APIRouter(prefix="/v1/models/{name}/versions/{number}", tags=["versions"], route_class=Guarded)


@router.get(
    "/card",
    dependencies=[needs(Scope.PREDICT)],
    response_class=Response,
    responses=problems(ModelNotFound, VersionNotFound),
)
def get_card(name: str, number: int, service: ServiceDep) -> Response:
    """Get a version's model card: Markdown with Hugging Face's metadata; what only a person knows is "not stated"."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        version = versions.get(connection, model, number)
        line = tuple(map(model.names.version, versions.lineage(connection, model, number)))
        learned = batches.of_increments(connection, [one.increment_id for one in line])
        document = model.names.metrics(metrics.of_versions(connection, [version])[0])
        moved = relabelling.of_version(connection, model, number)
    learned = {increment_id: model.names.batch(batch) for increment_id, batch in learned.items()}
    subject = Subject(model, line, learned, document, _manifest(service, version), moved)
    text = card(subject).encode()
    tag = hashlib.sha256(text).hexdigest()
    return Response(text, media_type="text/markdown; charset=utf-8", headers={"ETag": f'"{tag}"'})


@router.get(
    "/export",
    dependencies=[needs(Scope.TRAIN)],
    response_class=Response,
    responses=problems(ModelNotFound, VersionNotFound, NotFound),
)
def export_version(
    name: str,
    number: int,
    service: ServiceDep,
    format: Annotated[  # noqa: A002 - the query's name
        Literal["onnx"], Query(description="onnx: the graph that is served, with labels and transform in its metadata.")
    ] = "onnx",
) -> Response:
    """Export a version as one file that any ONNX runtime computes; asked again, it is equal bit by bit."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        version = model.names.version(versions.get(connection, model, number))
    if (stored := version.files.get(EXECUTABLE)) is None:
        raise NotFound(
            f"Version {number} has no {EXECUTABLE}: its network cannot be exported, or it is of an earlier release and "
            "`accrete upgrade` adds the file."
        )
    content = exports.described(service.blobs.get(stored.sha256), _entries(service, model, version))
    headers = {
        "Content-Disposition": f'attachment; filename="{model.name}-{number}.{format}"',
        "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
    }
    return Response(content, media_type="application/octet-stream", headers=headers)


def _entries(service: Service, model: Model, version: Version) -> dict[str, str]:
    return exports.entries_of(model, version, version.files[EXECUTABLE], _manifest(service, version))


def _manifest(service: Service, version: Version) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.blobs.get(version.files[MANIFEST].sha256))
    return found
