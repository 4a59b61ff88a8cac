"""Versions, their metrics and files, and which one is in service."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from api.http.guarded_route import Guarded
from api.http.idempotency import IdempotencyKey
from api.http.problems import problems
from api.http.rights import needs
from api.routes.promotion import Promotion, etag
from api.schemas.base import Cursor, Limit, PageOut
from api.schemas.metrics import ModelMetricsOut, VersionMetricsOut
from api.schemas.versions import CurrentIn, CurrentOut, PromotionOut, VersionOut
from api.service import Service, ServiceDep
from api.views import records
from storage.domain import Scope
from storage.errors import (
    IdempotencyMismatch,
    ModelNotFound,
    NotFound,
    NoVersionYet,
    PreconditionFailed,
    VersionInUse,
    VersionNotFound,
    VersionUnfit,
)
from storage.history import metrics, models, promotions, versions
from storage.history.curves import curves
from storage.history.lineage import in_present_tasks
from storage.requests import audit

router = APIRouter(prefix="/v1/models/{name}", tags=["versions"], route_class=Guarded)
IfMatch = Annotated[str | None, Header()]
IfNoneMatch = Annotated[str | None, Header()]
OfVersion = Annotated[int | None, Query(ge=1, description="Version whose ancestors to follow; default: the head.")]


@router.get("/versions", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound))
def list_versions(name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[VersionOut]:
    """List a model's versions."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        page = versions.page(connection, model, limit=limit, cursor=cursor)
        return PageOut(items=records.version_list(connection, model, page.items), next_cursor=page.next_cursor)


@router.get(
    "/versions/{number}", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound, VersionNotFound)
)
def get_version(name: str, number: int, service: ServiceDep) -> VersionOut:
    """Look at one version: lineage, recipe, data digest, checksums."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        return records.version_list(connection, model, [versions.get(connection, model, number)])[0]


@router.delete(
    "/versions/{number}",
    dependencies=[needs(Scope.ADMIN)],
    status_code=204,
    responses=problems(ModelNotFound, VersionNotFound, VersionInUse),
)
def delete_version(name: str, number: int, service: ServiceDep) -> None:
    """Delete a version that is neither current nor head; its row of the accuracy matrix stays."""
    with service.database.write() as connection:
        model = models.lock(connection, name)
        versions.remove(connection, model, number)
        audit.record_change(connection, deleted={"version": number})
    service.engine.registry.forget(model.id, number)
    service.dispose()


@router.get(
    "/versions/{number}/files/{file}",
    dependencies=[needs(Scope.TRAIN)],
    response_class=Response,
    responses=problems(ModelNotFound, VersionNotFound, NotFound),
)
def get_version_file(name: str, number: int, file: str, service: ServiceDep) -> Response:
    """Get a file of a version; its files are all that is needed to predict."""
    with service.database.read() as connection:
        version = versions.get(connection, models.get(connection, name), number)
    if file not in version.files:
        raise NotFound(f"Version {number} has no file {file!r}; it has {', '.join(version.files)}.")
    stored = version.files[file]
    kind = "application/json" if file.endswith(".json") else "application/octet-stream"
    return Response(service.blobs.get(stored.sha256), media_type=kind, headers={"ETag": f'"{stored.sha256}"'})


@router.get(
    "/versions/{number}/metrics",
    dependencies=[needs(Scope.PREDICT)],
    responses=problems(ModelNotFound, VersionNotFound),
)
def get_version_metrics(name: str, number: int, service: ServiceDep) -> VersionMetricsOut:
    """Get every metric of a version, task-agnostic and task-aware."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        version = model.names.version(versions.get(connection, model, number))
        document = model.names.metrics(metrics.of_versions(connection, [version])[0])
    return VersionMetricsOut(
        model=name,
        version=number,
        classes=list(version.classes),
        tasks=[list(task) for task in version.tasks],
        **document,
    )


@router.get(
    "/metrics", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound, VersionNotFound, NoVersionYet)
)
def get_model_metrics(name: str, service: ServiceDep, version: OfVersion = None) -> ModelMetricsOut:
    """Get the accuracy matrix and every curve along a version's line of ancestors."""
    return _history(service, name, version)


@router.get("/current", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound))
def get_current(name: str, response: Response, service: ServiceDep) -> CurrentOut:
    """See which version is in service; the ETag names this state."""
    with service.database.read() as connection:
        model = models.get(connection, name)
    answer = records.current(model)
    response.headers["ETag"] = etag(answer.revision)
    return answer


@router.put(
    "/current",
    dependencies=[needs(Scope.TRAIN)],
    responses=problems(ModelNotFound, VersionNotFound, VersionUnfit, PreconditionFailed, IdempotencyMismatch),
)
async def promote(
    name: str,
    body: CurrentIn,
    request: Request,
    response: Response,
    service: ServiceDep,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> CurrentOut:
    """Put a version into service, a newer or an older one; the next increment starts from it.

    The version is loaded, checked and warmed first. If it cannot answer, the request is refused and nothing changes.
    """
    promotion = Promotion(
        version=body.version,
        if_match=if_match,
        if_none_match=if_none_match,
        idempotency_key=idempotency_key,
        key=request.state.key,
        reason=body.reason,
    )
    answer = await promotion.made(service, name)
    response.headers["ETag"] = etag(answer.revision)
    return answer


@router.get("/promotions", dependencies=[needs(Scope.TRAIN)], responses=problems(ModelNotFound))
def list_promotions(name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[PromotionOut]:
    """List which version was put into service when, by whom and why, latest first."""
    with service.database.read() as connection:
        page = promotions.page(connection, models.get(connection, name), limit=limit, cursor=cursor)
    return PageOut(items=[records.promotion(item) for item in page.items], next_cursor=page.next_cursor)


def _history(service: Service, name: str, number: int | None) -> ModelMetricsOut:
    with service.database.read() as connection:
        model = models.get(connection, name)
        wanted = number if number is not None else model.head
        if wanted is None:
            raise NoVersionYet(f"Model {name!r} has no version yet, so there is nothing to measure.")
        versions.get(connection, model, wanted)
        line = versions.lineage(connection, model, wanted)
        drawn = curves(in_present_tasks(line, metrics.of_versions(connection, line), every=True))
    return ModelMetricsOut(
        model=name,
        version=wanted,
        versions=[version.number for version in line],
        tasks=[list(model.names.all(task)) for task in line[-1].tasks],
        **drawn,
    )
