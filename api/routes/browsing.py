"""Looking through what was collected: batches, and images with small pictures of them."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from sqlalchemy import Connection

from api.http.conditional import is_current
from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.schemas.base import Cursor, Limit, PageOut
from api.schemas.batches import BatchOut, StoredImageOut
from api.service import ServiceDep
from api.views import records
from api.views.pictures import SAFE_HEADERS
from storage.domain import Image, Model, Page, Scope, Split
from storage.errors import BatchNotFound, ImageNotFound, ImageUnreadable, ModelNotFound, VersionNotFound
from storage.history import models, versions
from storage.labels import folded
from storage.material import batches, browsing, images, packs
from storage.material.browsing import Filter
from trainer.networks.pictures import ImageRejected

router = APIRouter(prefix="/v1", tags=["images"], route_class=Guarded)

DAY = 24 * 3600


def wanted(
    label: Annotated[str | None, Query(min_length=1, max_length=1000, description="Only images of this class.")] = None,
    split: Annotated[Split | None, Query(description="Only images of this side.")] = None,
    exemplar_of: Annotated[int | None, Query(ge=1, description="Only what this version keeps as exemplars.")] = None,
    text: Annotated[
        str | None, Query(min_length=1, max_length=200, description="Only files with this in their name.")
    ] = None,
) -> Filter:
    """Which images a request asks for."""
    return Filter(
        labels=frozenset([label]) if label is not None else None, split=split, exemplar_of=exemplar_of, text=text
    )


Wanted = Annotated[Filter, Depends(wanted)]


@router.get("/models/{name}/batches", dependencies=[needs(Scope.TRAIN)], responses=problems(ModelNotFound))
def list_batches(name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[BatchOut]:
    """List what was collected for a model, latest first."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        page = batches.page(connection, model, limit=limit, cursor=cursor)
        return PageOut(items=records.batch_list(connection, model, page.items), next_cursor=page.next_cursor)


@router.get(
    "/batches/{batch_id}/images",
    dependencies=[needs(Scope.TRAIN)],
    responses=problems(BatchNotFound, VersionNotFound),
)
def list_batch_images(
    batch_id: str,
    service: ServiceDep,
    wanted: Wanted,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> PageOut[StoredImageOut]:
    """List the stored images of a batch."""
    with service.database.read() as connection:
        batch = batches.get(connection, batch_id)
        model = models.by_id(connection, batch.model_id)
        held = _held(connection, model, wanted)
        return _shown(model, browsing.of_batch(connection, model, batch_id, held, limit=limit, cursor=cursor))


@router.get(
    "/models/{name}/images",
    dependencies=[needs(Scope.TRAIN)],
    responses=problems(ModelNotFound, VersionNotFound),
)
def list_images(
    name: str,
    service: ServiceDep,
    wanted: Wanted,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> PageOut[StoredImageOut]:
    """List the stored images of a model, batch by batch."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        held = _held(connection, model, wanted)
        return _shown(model, browsing.of_model(connection, model, held, limit=limit, cursor=cursor))


@router.get(
    "/images/{image_id}/thumbnail",
    dependencies=[needs(Scope.TRAIN)],
    response_class=Response,
    responses=problems(ImageNotFound, ImageUnreadable),
)
def get_thumbnail(
    image_id: str,
    request: Request,
    service: ServiceDep,
    side: Annotated[int, Query(ge=16, le=512, description="Largest height and width, in pixels.")] = 128,
) -> Response:
    """Get a small picture of a stored image, as JPEG: upright, with its proportions, transparency laid on white."""
    with service.database.read() as connection:
        image = images.get(connection, image_id)
    # Content never changes, but an image may be erased: browsers ask again after a day.
    headers = SAFE_HEADERS | {"ETag": f'"{image.digest}-{side}"', "Cache-Control": f"private, max-age={DAY}"}
    if is_current(request.headers, headers["ETag"]):
        return Response(status_code=304, headers=headers)  # without decoding it

    def original() -> bytes:
        return packs.original(image, database=service.database, blobs=service.blobs)

    try:
        picture = service.thumbnails.of(image.digest, side, original, max_pixels=service.settings.max_image_pixels)
    except ImageRejected as rejected:
        raise ImageUnreadable(f"Image {image_id!r} has no picture: {rejected}.", file=image.filename) from rejected
    return Response(picture, media_type="image/jpeg", headers=headers)


def _held(connection: Connection, model: Model, wanted: Filter) -> Filter:
    """What is wanted, by the label of the class; raises `VersionNotFound` for exemplars of an unknown version."""
    if wanted.exemplar_of is not None:
        versions.get(connection, model, wanted.exemplar_of)
    if wanted.labels is None:
        return wanted
    asked = {model.names.found(folded(name)) for name in wanted.labels}
    return replace(
        wanted, labels=frozenset(asked.union(*(versions.merged_into(connection, model, one) for one in asked)))
    )


def _shown(model: Model, page: Page[Image]) -> PageOut[StoredImageOut]:
    return PageOut(items=[records.stored_image(model, image) for image in page.items], next_cursor=page.next_cursor)
