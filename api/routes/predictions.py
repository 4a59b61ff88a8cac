"""Predictions, and the record of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from api import views
from api.bodies import IMAGES, images_of
from api.problems import problems
from api.routes.models import Cursor, Limit
from api.schemas.base import PageOut
from api.schemas.predictions import PredictionOut, PredictionRecordOut
from api.service import Service, ServiceDep
from storage import models, predictions
from storage.domain import Prediction, new_id, now
from storage.errors import (
    ImageUnreadable,
    Invalid,
    ModelNotFound,
    NoVersionYet,
    PredictionNotFound,
    TooLarge,
    VersionNotFound,
)

router = APIRouter(prefix="/v1", tags=["predictions"])


@router.post(
    "/models/{name}/predictions",
    openapi_extra=IMAGES,
    responses=problems(ModelNotFound, NoVersionYet, VersionNotFound, ImageUnreadable, Invalid, TooLarge),
)
async def predict(
    name: str,
    request: Request,
    service: ServiceDep,
    top_k: Annotated[int, Query(ge=1, le=1000, description="Classes per image, best first.")] = 5,
    version: Annotated[int | None, Query(ge=1, description="Default: the version in service.")] = None,
    record: Annotated[Literal["behind", "durable"], Query(description="durable waits for the commit.")] = "behind",
) -> PredictionOut:
    """Classify images: one as the body, several as multipart files, or base64 in JSON."""
    files = await images_of(request)
    images = [data for _, data in files]
    return await run_in_threadpool(_predict, service, name, images, top_k, version, record == "durable")


@router.get("/models/{name}/predictions", responses=problems(ModelNotFound))
def list_predictions(
    name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None
) -> PageOut[PredictionRecordOut]:
    """List the record of predictions, latest first."""
    with service.database.read() as connection:
        page = predictions.page(connection, models.get(connection, name), limit=limit, cursor=cursor)
    return PageOut(items=[views.prediction(item, name) for item in page.items], next_cursor=page.next_cursor)


@router.get("/predictions/{prediction_id}", responses=problems(PredictionNotFound))
def get_prediction(prediction_id: str, service: ServiceDep) -> PredictionRecordOut:
    """Read back what was predicted, when, and by which version."""
    pending = service.recorder.pending(prediction_id)
    with service.database.read() as connection:
        found = pending if pending is not None else predictions.get(connection, prediction_id)
        return views.prediction(found, models.by_id(connection, found.model_id).name)


def _predict(
    service: Service, name: str, images: list[bytes], top_k: int, version: int | None, durable: bool
) -> PredictionOut:
    with service.database.read() as connection:
        model = models.get(connection, name)
    answer = service.engine.predict(model, images, top_k=top_k, version=version)
    record = Prediction(
        id=new_id(),
        model_id=model.id,
        version=answer.version,
        predictions=answer.predictions,
        created_at=now(),
    )
    return PredictionOut(
        id=record.id if _keep(service, record, durable=durable) else None,
        model=name,
        version=answer.version,
        predictions=[views.ranked(one) for one in answer.predictions],
    )


def _keep(service: Service, record: Prediction, *, durable: bool) -> bool:
    if not durable:
        return service.recorder.add(record)
    with service.database.write() as connection:
        models.by_id(connection, record.model_id)
        predictions.add(connection, [record])
    return True
