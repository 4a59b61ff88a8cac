"""Predictions, and the record of them."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.bodies.images import above, images_body, images_of
from api.http.direct_route import Direct
from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.schemas.base import Cursor, Limit, PageOut
from api.schemas.predictions import Deadline, PredictionIn, PredictionOut, PredictionRecordOut, Reference
from api.service import Service, ServiceDep
from api.serving.engine import Answer, Ranked, within
from api.views import records
from api.views.pictures import as_uploaded
from storage.domain import KeepPredictions, Prediction, Scope, new_id, now
from storage.errors import (
    BlobMissing,
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
from storage.material import kept
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
INLINE_BYTES = 1 << 16  # of the images; the digests of more are computed on another thread
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
    reference: Annotated[Reference | None, Query()] = None,
    deadline: Deadline = None,
) -> PredictionOut | Response:
    """Classify images: one as the body, several as multipart files, or base64 in JSON."""
    until = service.engine.deadline(request.state.arrived_at, deadline)
    async with within(until):
        files, asked = await images_of(request, PredictionIn)
    asked = above(asked, request, top_k=top_k, version=version, record=record, reference=reference)
    images = [data for _, data in files]
    answer = await service.engine.predict(name, images, version=asked.version, deadline=until)
    how: Kept = {
        "images": images,
        "reference": asked.reference,
        "durable": asked.record == "durable",
        "keeps_images": keeps_images(service, name, answer),
    }
    if len(files) * asked.top_k > INLINE_RANKS:
        ranked = await run_in_threadpool(answer.ranked, asked.top_k)
        number = await recorded(service, answer, ranked, **how)
        return Response(await run_in_threadpool(_written, name, answer, ranked, number), media_type="application/json")
    ranked = answer.ranked(asked.top_k)
    return _said(name, answer, ranked, await recorded(service, answer, ranked, **how))


@router.get("/models/{name}/predictions", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound))
def list_predictions(
    name: str,
    service: ServiceDep,
    reference: Annotated[Reference | None, Query(description="Only of requests that bore it.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> PageOut[PredictionRecordOut]:
    """List the record of predictions, latest first."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        page = predictions.page(connection, model, limit=limit, cursor=cursor, reference=reference)
        found = kept.positions(connection, [item.id for item in page.items])
    items = [records.prediction(item, name, kept=found.get(item.id, ())) for item in page.items]
    return PageOut(items=items, next_cursor=page.next_cursor)


@router.get("/predictions/{prediction_id}", dependencies=[needs(Scope.PREDICT)], responses=problems(PredictionNotFound))
def get_prediction(prediction_id: str, service: ServiceDep) -> PredictionRecordOut:
    """Read back what was predicted, when, and by which version."""
    pending = service.recorder.pending(prediction_id)
    with service.database.read() as connection:
        found = pending if pending is not None else predictions.get(connection, prediction_id)
        positions = kept.positions(connection, [prediction_id]).get(prediction_id, ())
        return records.prediction(found, models.by_id(connection, found.model_id).name, kept=positions)


@router.get(
    "/predictions/{prediction_id}/images/{position}",
    dependencies=[needs(Scope.TRAIN)],
    response_class=Response,
    responses=problems(PredictionNotFound),
)
def get_kept_image(prediction_id: str, position: Annotated[int, Path(ge=0, le=9999)], service: ServiceDep) -> Response:
    """Get an image of a prediction as it was sent, where the model keeps them."""
    with service.database.read() as connection:
        image = kept.get(connection, prediction_id, position)
    try:
        data = service.blobs.get(image.digest)
    except BlobMissing:  # its turn to be deleted came meanwhile
        with service.database.read() as connection:
            kept.get(connection, prediction_id, position)
        raise
    return as_uploaded(data, image.digest)


class Kept(TypedDict):
    """What a record keeps of a request, and how it is written."""

    images: Sequence[bytes] | None  # files; None for pixels
    reference: str | None
    durable: bool
    keeps_images: bool


def keeps_images(service: Service, name: str, answer: Answer) -> bool:
    """Whether the model keeps the images of its predictions, as of the last look at it."""
    model = service.engine.registry.known(name)
    return model is not None and model.id == answer.model_id and model.keep_predictions is KeepPredictions.ALL


async def recorded(
    service: Service,
    answer: Answer,
    ranked: Sequence[Ranked],
    *,
    images: Sequence[bytes] | None,
    reference: str | None,
    durable: bool,
    keeps_images: bool,
) -> str | None:
    """Record an answer, at once if ``durable``, else soon; the record's id, or None if no record is kept.

    ``images`` are the files that were sent, of which their digests are recorded, and which are kept if
    ``keeps_images``; None for pixels.
    """
    if not durable and not service.recorder.chooses():
        return None
    record = Prediction(
        id=new_id(),
        model_id=answer.model_id,
        version=answer.version,
        predictions=tuple(ranked),
        created_at=now(),
        digests=await _digests(images) if images is not None else None,
        reference=reference,
    )
    if durable:
        await run_in_threadpool(service.recorder.add_now, record, images or ())
    elif not service.recorder.add(record, images if images and keeps_images else ()):
        return None
    return record.id


async def _digests(images: Sequence[bytes]) -> tuple[str, ...]:
    is_short = sum(map(len, images)) <= INLINE_BYTES
    return _hashed(images) if is_short else await run_in_threadpool(_hashed, images)


def _hashed(images: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(data).hexdigest() for data in images)


def _said(name: str, answer: Answer, ranked: Sequence[Ranked], number: str | None) -> PredictionOut:
    return PredictionOut(
        id=number, model=name, version=answer.version, predictions=[records.ranked(one) for one in ranked]
    )


def _written(name: str, answer: Answer, ranked: Sequence[Ranked], number: str | None) -> str:
    return _said(name, answer, ranked, number).model_dump_json()
