"""Increments: ask for one, look at it, stop it, try it again; `api.routes.events` follows it."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.admission import options, queueing
from api.admission.fitness import check_of_model, rehearses
from api.admission.options import IncrementOptions
from api.bodies.images import ARCHIVES
from api.bodies.media_types import media_type
from api.bodies.uploads import received
from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.http.root_path import located
from api.schemas.base import Cursor, Limit, PageOut, in_openapi
from api.schemas.increments import IncrementIn, IncrementOut
from api.service import Service, ServiceDep
from api.views import records
from storage.domain import KnownClasses, Promotion, Scope
from storage.errors import (
    ArchiveUnreadable,
    ArchiveUnsafe,
    BatchClosed,
    BatchInvalid,
    BatchNotFound,
    ClassesAlreadyKnown,
    IdempotencyMismatch,
    IncrementNotCancellable,
    IncrementNotFound,
    IncrementNotRetryable,
    JustDeleted,
    ModelNotFound,
    NothingToLearn,
    RecipeInvalid,
    StrategyUnfit,
    TooLarge,
    UnknownStrategy,
)
from storage.history import models
from storage.requests import audit
from storage.work import increments, reports

router = APIRouter(prefix="/v1", tags=["increments"], route_class=Guarded)

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **ARCHIVES,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {
                        "data": {"type": "string", "format": "binary"},
                        "strategy": {"type": "string"},
                        "recipe": {"type": "string", "description": "JSON object"},
                        "promote": {"enum": ["auto", "manual"]},
                        "known_classes": {"enum": ["refuse", "rehearse"]},
                    },
                }
            },
            "application/json": {"schema": in_openapi(IncrementIn)},
        },
    }
}


@router.post(
    "/models/{name}/increments",
    dependencies=[needs(Scope.TRAIN)],
    status_code=202,
    openapi_extra=BODY,
    responses=problems(
        ModelNotFound,
        BatchNotFound,
        ClassesAlreadyKnown,
        BatchClosed,
        UnknownStrategy,
        RecipeInvalid,
        StrategyUnfit,
        NothingToLearn,
        BatchInvalid,
        ArchiveUnreadable,
        ArchiveUnsafe,
        IdempotencyMismatch,
        JustDeleted,
        TooLarge,
    ),
)
async def request_increment(
    name: str,
    request: Request,
    response: Response,
    service: ServiceDep,
    strategy: Annotated[str | None, Query()] = None,
    recipe: Annotated[str | None, Query(description='JSON object, e.g. {"epochs": 10}')] = None,
    promote: Annotated[Promotion | None, Query()] = None,
    known_classes: Annotated[KnownClasses | None, Query()] = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> IncrementOut:
    """Queue one update of a model from labelled images: a zip or tar archive, or a batch collected before."""
    asked = {"strategy": strategy, "recipe": recipe, "promote": promote, "known_classes": known_classes}
    if media_type(request.headers) == "application/json":
        body = options.parse_json(await request.body())
        wanted = options.read(body.model_dump(exclude={"batch_id"}), asked, idempotency_key=idempotency_key)
        await run_in_threadpool(_check_options, service, name, wanted)
        increment, is_new = await run_in_threadpool(queueing.from_batch, service, name, body.batch_id, wanted)
    else:
        wanted = options.read({}, asked, idempotency_key=idempotency_key)
        await run_in_threadpool(_check_options, service, name, wanted)  # before a large upload is received in vain
        async with received(request, service.settings) as upload:
            wanted = options.read(upload.fields, asked, idempotency_key=idempotency_key)
            increment, is_new = await run_in_threadpool(queueing.from_archive, service, name, upload, wanted)
    if is_new:
        await run_in_threadpool(service.wake_worker, increment.id)
    response.headers["Location"] = located(request, f"/v1/increments/{increment.id}")
    return await run_in_threadpool(_look, service, increment.id)


@router.get("/models/{name}/increments", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound))
def list_increments(name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[IncrementOut]:
    """List a model's increments, latest first."""
    with service.database.read() as connection:
        page = reports.page(connection, models.get(connection, name), limit=limit, cursor=cursor)
        items = [records.increment(item) for item in page.items]
    return PageOut(items=items, next_cursor=page.next_cursor)


@router.get("/increments/{increment_id}", dependencies=[needs(Scope.PREDICT)], responses=problems(IncrementNotFound))
def get_increment(increment_id: str, service: ServiceDep) -> IncrementOut:
    """Look at one increment: how far it is, or how it ended."""
    return _look(service, increment_id)


@router.post(
    "/increments/{increment_id}/cancel",
    dependencies=[needs(Scope.TRAIN)],
    responses=problems(IncrementNotFound, IncrementNotCancellable),
)
def cancel_increment(increment_id: str, service: ServiceDep) -> IncrementOut:
    """Stop an increment: at once when it is queued, within seconds when it runs."""
    with service.database.write() as connection:
        before = increments.get(connection, increment_id).status
        increments.cancel(connection, increment_id)
        after = increments.get(connection, increment_id).status
        audit.record_change(connection, changed={"status": [before, after], "cancel_requested": [False, True]})
    return _look(service, increment_id)


@router.post(
    "/increments/{increment_id}/retry",
    dependencies=[needs(Scope.TRAIN)],
    status_code=202,
    responses=problems(
        IncrementNotFound, IncrementNotRetryable, ClassesAlreadyKnown, StrategyUnfit, NothingToLearn, BatchInvalid
    ),
)
def retry_increment(increment_id: str, service: ServiceDep) -> IncrementOut:
    """Queue a failed or cancelled increment once more; it starts over."""
    with service.database.write() as connection:
        found = increments.get(connection, increment_id)
        model = models.lock(connection, models.by_id(connection, found.model_id).name)
        check_of_model(connection, model, found.strategy, found.recipe)
        known = increments.coming_classes(connection, model)
        beside = rehearses(model, found.strategy, known=known)
        increments.retry(connection, increment_id, model=model, rehearses=beside)
        audit.record_change(
            connection, changed={"status": [found.status, increments.get(connection, increment_id).status]}
        )
    service.dispose()
    service.wake_worker(increment_id)
    return _look(service, increment_id)


def _look(service: Service, increment_id: str) -> IncrementOut:
    with service.database.read() as connection:
        return records.increment(reports.get(connection, increment_id))


def _check_options(service: Service, name: str, wanted: IncrementOptions) -> None:
    """Check what needs no images, before the transaction that queues."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        if not increments.has_key(connection, model, wanted.idempotency_key):  # a repeated request gets its answer
            wanted.recipe_for(connection, model)
