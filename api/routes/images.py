"""Stored images, and their predictions by the version in service."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.schemas.batches import ErasedOut
from api.schemas.predictions import Deadline, ImagePredictionOut
from api.service import Service, ServiceDep
from api.serving.engine import within
from api.views import records
from api.views.pictures import as_uploaded
from storage.domain import Scope
from storage.errors import (
    BatchInUse,
    DeadlineExceeded,
    ImageNotFound,
    ModelNotFound,
    NoVersionYet,
    Overloaded,
    VersionUnloadable,
)
from storage.history import models, versions
from storage.labels import folded
from storage.material import erasure, images, packs
from storage.requests import audit

router = APIRouter(prefix="/v1", tags=["images"], route_class=Guarded)


@router.get(
    "/images/{image_id}", dependencies=[needs(Scope.TRAIN)], response_class=Response, responses=problems(ImageNotFound)
)
def get_image(image_id: str, service: ServiceDep) -> Response:
    """Get a stored image as it was uploaded."""
    with service.database.read() as connection:
        image = images.get(connection, image_id)
    data = packs.original(image, database=service.database, blobs=service.blobs)
    return as_uploaded(data, image.digest)


@router.delete(
    "/images/{image_id}", dependencies=[needs(Scope.ADMIN)], status_code=204, responses=problems(ImageNotFound)
)
def delete_image(image_id: str, service: ServiceDep) -> None:
    """Erase an image, wherever it is kept; metrics measured with it stay."""
    with service.database.write() as connection:
        image = erasure.erase_image(connection, image_id)
        audit.record_change(connection, deleted={"image": image.id, "label": image.label, "batch": image.batch_id})
    service.dispose()


@router.delete(
    "/models/{name}/classes/{label}/images",
    dependencies=[needs(Scope.ADMIN)],
    responses=problems(ModelNotFound, ImageNotFound, BatchInUse),
)
def delete_class_images(name: str, label: str, service: ServiceDep) -> ErasedOut:
    """Erase every stored image of a class; versions trained on them, and their metrics, stay."""
    with service.database.write() as connection:
        model = models.lock(connection, name)
        merged = versions.merged_into(connection, model, model.names.found(folded(label)))
        count = erasure.erase_class(connection, model, label, merged=merged)
        audit.record_change(connection, deleted={"images": count, "label": label})
    service.dispose()
    return ErasedOut(erased=count)


@router.get(
    "/models/{name}/images/{image_id}/prediction",
    dependencies=[needs(Scope.PREDICT)],
    responses=problems(ModelNotFound, ImageNotFound, NoVersionYet, Overloaded, VersionUnloadable, DeadlineExceeded),
)
async def predict_image(
    name: str,
    image_id: str,
    request: Request,
    service: ServiceDep,
    top_k: Annotated[int, Query(ge=1, le=1000)] = 5,
    deadline: Deadline = None,
) -> ImagePredictionOut:
    """Predict a stored image of this model by its current version."""
    until = service.engine.deadline(request.state.arrived_at, deadline)
    async with within(until):
        label, data = await to_thread.run_sync(_stored, service, name, image_id, abandon_on_cancel=True)
    answer = await service.engine.predict(name, [data], deadline=until)
    return ImagePredictionOut(
        image=image_id,
        label=label,
        model=name,
        version=answer.version,
        predictions=records.ranked(answer.ranked(top_k)[0]),
    )


def _stored(service: Service, name: str, image_id: str) -> tuple[str, bytes]:
    """What the class of an image is called, and the image as it was uploaded."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        image = images.get(connection, image_id)
        if images.model_of(connection, image_id) != model.id:
            raise ImageNotFound(f"Image {image_id!r} was not uploaded for model {name!r}.")
    return model.names.name(image.label), packs.original(image, database=service.database, blobs=service.blobs)
