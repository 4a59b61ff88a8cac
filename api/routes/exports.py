"""What leaves the service with a version: its card, and its graph in one file with all that is needed to use it."""

import hashlib
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.http.root_path import located
from api.service import Service, ServiceDep
from api.views import exports
from api.views.cards import Subject, card
from storage.domain import Export, Model, Scope, Version
from storage.errors import ModelNotFound, NotFound, VersionNotFound
from storage.history import exports as exported
from storage.history import metrics, models, versions
from storage.material import batches
from storage.work import relabelling
from trainer.networks.description import agreement_of
from trainer.networks.manifest import EXECUTABLE, MANIFEST, PROGRAM

RETRY_SECONDS = 5  # a worker looks for wishes about as often
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
    responses={
        202: {"description": "The file is being made: ask again after Retry-After seconds."},
        **problems(ModelNotFound, VersionNotFound, NotFound),
    },
)
def export_version(
    name: str,
    number: int,
    request: Request,
    service: ServiceDep,
    format: Annotated[  # noqa: A002 - the query's name
        Literal["onnx", "pt2"],
        Query(
            description="onnx: the graph that is served; pt2: a torch.export program. Both with labels and transform."
        ),
    ] = "onnx",
) -> Response:
    """Export a version as one file that can be computed without Accrete; asked again, it is equal bit by bit.

    A worker makes the file `pt2` when it is asked for first: the answer is 202 until it is there. The header
    `Accrete-Agreement` says how well the file agrees with the trained network on evaluation images.
    """
    with service.database.read() as connection:
        model = models.get(connection, name)
        version = model.names.version(versions.get(connection, model, number))
        asked = exported.find(connection, version, PROGRAM)
    if format == "pt2":
        return _program(request, service, model, version, asked)
    if (stored := version.files.get(EXECUTABLE)) is None:
        raise NotFound(
            f"Version {number} has no {EXECUTABLE}: its network cannot be exported, or it is of an earlier release and "
            "`accrete upgrade` adds the file."
        )
    entries = exports.entries_of(model, version, stored, _manifest(service, version))
    content = exports.described(service.blobs.get(stored.sha256), entries)
    return _sent(content, f"{model.name}-{number}.onnx", entries["agreement"])


def _program(request: Request, service: Service, model: Model, version: Version, asked: Export | None) -> Response:
    """The file, or 202 while it is to be made; raises `NotFound` if it cannot be made."""
    if (stored := version.files.get(PROGRAM)) is not None:
        agreement = agreement_of((asked.agreement if asked is not None else None) or {})
        return _sent(service.blobs.get(stored.sha256), f"{model.name}-{version.number}.pt2", agreement)
    if asked is not None and asked.error is not None:
        raise NotFound(f"Version {version.number} has no {PROGRAM}, because {asked.error}. Take format=onnx.")
    if asked is None:
        with service.database.write() as connection:
            exported.request(connection, versions.get(connection, model, version.number), PROGRAM)
    path = f"/v1/models/{model.name}/versions/{version.number}/export?format=pt2"
    headers = {"Location": located(request, path), "Retry-After": str(RETRY_SECONDS)}
    return Response(status_code=202, headers=headers)


def _sent(content: bytes, filename: str, agreement: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{filename}"',
        "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        "Accrete-Agreement": agreement,
    }
    return Response(content, media_type="application/octet-stream", headers=headers)


def _manifest(service: Service, version: Version) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.blobs.get(version.files[MANIFEST].sha256))
    return found
