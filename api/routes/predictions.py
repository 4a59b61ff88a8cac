"""Predictions, and the record of them."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.bodies.images import above, images_body, images_of
from api.http.direct_route import Direct
from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.schemas.base import Cursor, Limit, PageOut
from api.schemas.predictions import Deadline, PredictionIn, PredictionOut, PredictionRecordOut
from api.service import Service, ServiceDep
from api.serving.engine import Answer, Ranked, within
from api.views import records
from storage.domain import Prediction, Scope, new_id, now
from storage.errors import (
    DeadlineExceeded,
    ImageUnreadable,
    Invalid,
    ModelNotFound,
    NoVersionYet,
    Overloaded,
    PredictionNotFound,
    TooLarge,
    VersionNotFound,
    VersionUnloadable,
)
from storage.history import models
from storage.requests import predictions

router = APIRouter(prefix="/v1", tags=["predictions"], route_class=Guarded)
hot = APIRouter(prefix="/v1", tags=["predictions"], route_class=Direct)

FAILURES = (
    ModelNotFound,
    NoVersionYet,
    VersionNotFound,
    ImageUnreadable,
    Invalid,
    TooLarge,
    Overloaded,
    VersionUnloadable,
    DeadlineExceeded,
)
INLINE_RANKS = 2000  # classes of an answer; a longer one is serialised on another thread
BODY = images_body(PredictionIn)


@hot.post(
    "/models/{name}/predictions",
    dependencies=[needs(Scope.PREDICT)],
    openapi_extra=BODY,
    response_model=PredictionOut,
    responses=problems(*FAILURES),
)
async def predict(
    name: str,
    request: Request,
    service: ServiceDep,
    top_k: Annotated[int, Query(ge=1, le=1000, description="Classes per image, best first.")] = 5,
    version: Annotated[int | None, Query(ge=1, description="Default: the version in service.")] = None,
    record: Annotated[Literal["behind", "durable"], Query(description="durable waits for the commit.")] = "behind",
    deadline: Deadline = None,
) -> PredictionOut | Response:
    """Classify images: one as the body, several as multipart files, or base64 in JSON."""
    until = service.engine.deadline(request.state.arrived_at, deadline)
    async with within(until):
        files, asked = await images_of(request, PredictionIn)
    asked = above(asked, request, top_k=top_k, version=version, record=record)
    answer = await service.engine.predict(name, [data for _, data in files], version=asked.version, deadline=until)
    is_durable = asked.record == "durable"
    if len(files) * asked.top_k > INLINE_RANKS:
        ranked = await run_in_threadpool(answer.ranked, asked.top_k)
        number = await recorded(service, answer, ranked, durable=is_durable)
        return Response(await run_in_threadpool(_written, name, answer, ranked, number), media_type="application/json")
    ranked = answer.ranked(asked.top_k)
    return _said(name, answer, ranked, await recorded(service, answer, ranked, durable=is_durable))


@router.get("/models/{name}/predictions", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound))
def list_predictions(
    name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None
) -> PageOut[PredictionRecordOut]:
    """List the record of predictions, latest first."""
    with service.database.read() as connection:
        page = predictions.page(connection, models.get(connection, name), limit=limit, cursor=cursor)
    return PageOut(items=[records.prediction(item, name) for item in page.items], next_cursor=page.next_cursor)


@router.get("/predictions/{prediction_id}", dependencies=[needs(Scope.PREDICT)], responses=problems(PredictionNotFound))
def get_prediction(prediction_id: str, service: ServiceDep) -> PredictionRecordOut:
    """Read back what was predicted, when, and by which version."""
    pending = service.recorder.pending(prediction_id)
    with service.database.read() as connection:
        found = pending if pending is not None else predictions.get(connection, prediction_id)
        return records.prediction(found, models.by_id(connection, found.model_id).name)


async def recorded(service: Service, answer: Answer, ranked: Sequence[Ranked], *, durable: bool) -> str | None:
    """Record an answer, at once if ``durable``, else soon; the record's id, or None if no record is kept."""
    record = Prediction(
        id=new_id(), model_id=answer.model_id, version=answer.version, predictions=tuple(ranked), created_at=now()
    )
    if durable:
        await run_in_threadpool(_write, service, record)
    elif not service.recorder.add(record):
        return None
    return record.id


def _said(name: str, answer: Answer, ranked: Sequence[Ranked], number: str | None) -> PredictionOut:
    return PredictionOut(
        id=number, model=name, version=answer.version, predictions=[records.ranked(one) for one in ranked]
    )


def _written(name: str, answer: Answer, ranked: Sequence[Ranked], number: str | None) -> str:
    return _said(name, answer, ranked, number).model_dump_json()


def _write(service: Service, record: Prediction) -> None:
    with service.database.write() as connection:
        models.by_id(connection, record.model_id)
        predictions.add(connection, [record])
