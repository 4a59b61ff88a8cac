"""Batches: collect labelled images in one or more requests, look at them, then ask for an increment from them."""

import hashlib
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.admission import queueing
from api.bodies.images import ARCHIVES, above, images_body, images_of
from api.bodies.uploads import Upload, received
from api.http.guarded_route import Guarded, has_body
from api.http.idempotency import IdempotencyKey, answered, once
from api.http.problems import problems
from api.http.rights import needs
from api.http.root_path import located
from api.schemas.base import Cursor, Limit, PageOut
from api.schemas.batches import AddedImagesIn, BatchOut, ImageOut, ImagesOut, RejectOut
from api.service import Service, ServiceDep
from api.views import records
from storage.domain import BatchStatus, Image, Model, Scope, Split, new_id
from storage.errors import (
    ArchiveUnreadable,
    ArchiveUnsafe,
    BatchClosed,
    BatchInUse,
    BatchInvalid,
    BatchNotFound,
    IdempotencyMismatch,
    ImageUnreadable,
    Invalid,
    JustDeleted,
    ModelNotFound,
    TooLarge,
)
from storage.history import classes, models
from storage.labels import FORBIDDEN, folded, label_fault
from storage.material import batches, erasure, references, rejects
from storage.requests import audit
from storage.requests.idempotency import Asked
from trainer.networks.pictures import Form, ImageRejected

router = APIRouter(prefix="/v1", tags=["batches"], route_class=Guarded)

MAX_FILENAME = 255  # characters
FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"type": "string", "format": "binary"}},
    }
}


@router.post(
    "/models/{name}/batches",
    dependencies=[needs(Scope.TRAIN)],
    status_code=201,
    openapi_extra={"requestBody": {"content": {**ARCHIVES, "multipart/form-data": FORM}}},
    responses=problems(
        ModelNotFound, BatchInvalid, ArchiveUnreadable, ArchiveUnsafe, TooLarge, IdempotencyMismatch, JustDeleted
    ),
)
async def create_batch(
    name: str, request: Request, response: Response, service: ServiceDep, idempotency_key: IdempotencyKey = None
) -> BatchOut:
    """Create a batch: an empty one, to be filled by later requests, or one of the archive in the body."""
    await run_in_threadpool(require_model, service, name)  # before a large upload is received in vain
    async with received(request, service.settings) as upload:
        if upload.size == 0 and has_body(request):
            raise ArchiveUnreadable(
                "The body is empty: send a zip or tar archive, or, to open a batch, no body at all."
            )
        if upload.fields:
            raise Invalid(
                f"Unknown field {', '.join(sorted(upload.fields))[:200]}: the form of a batch is 'data' alone."
            )
        batch = await run_in_threadpool(_create, service, name, upload, idempotency_key)
    response.headers["Location"] = located(request, f"/v1/batches/{batch.id}")
    return batch


@router.get("/batches/{batch_id}", dependencies=[needs(Scope.TRAIN)], responses=problems(BatchNotFound))
def get_batch(batch_id: str, service: ServiceDep) -> BatchOut:
    """See what is in a batch: its classes, their counts, and what was left out."""
    with service.database.read() as connection:
        return records.batch(connection, batches.get(connection, batch_id))


@router.get("/batches/{batch_id}/rejects", dependencies=[needs(Scope.TRAIN)], responses=problems(BatchNotFound))
def list_rejects(batch_id: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[RejectOut]:
    """List the bad files of a batch, which were left out, and why."""
    with service.database.read() as connection:
        page = rejects.page(connection, batches.get(connection, batch_id).id, limit=limit, cursor=cursor)
    items = [RejectOut.model_validate(reject) for reject in page.items]
    return PageOut(items=items, next_cursor=page.next_cursor)


@router.delete(
    "/batches/{batch_id}",
    dependencies=[needs(Scope.ADMIN)],
    status_code=204,
    responses=problems(BatchNotFound, BatchInUse),
)
def delete_batch(batch_id: str, service: ServiceDep) -> None:
    """Erase a batch with all its images, wherever they are kept; metrics measured with them stay."""
    with service.database.write() as connection:
        audit.record_change(
            connection, deleted={"batch": batch_id, "images": erasure.erase_batch(connection, batch_id)}
        )
    service.dispose()


@router.post(
    "/batches/{batch_id}/images",
    dependencies=[needs(Scope.TRAIN)],
    status_code=201,
    openapi_extra=images_body(AddedImagesIn),
    responses=problems(BatchNotFound, BatchClosed, BatchInvalid, ImageUnreadable, TooLarge, IdempotencyMismatch),
)
async def add_images(
    batch_id: str,
    request: Request,
    service: ServiceDep,
    label: Annotated[str | None, Query(min_length=1, max_length=1000, description="Class of the images.")] = None,
    split: Annotated[Split | None, Query(description="Side of the images; left out, their content decides.")] = None,
    idempotency_key: IdempotencyKey = None,
) -> ImagesOut:
    """Add images of one class to an open batch: an image as the body, or several as multipart files."""
    files, asked = await images_of(request, AddedImagesIn)
    asked = above(asked, request, label=label, split=split)
    if asked.label is None:
        raise Invalid("label is missing: name the class of the images, as in ?label=cat.")
    return await run_in_threadpool(_add, service, batch_id, asked.label, asked.split, files, idempotency_key)


def require_model(service: Service, name: str) -> None:
    """Raise `ModelNotFound` if there is no model of that name."""
    with service.database.read() as connection:
        models.get(connection, name)


def _create(service: Service, name: str, upload: Upload, key: str | None) -> BatchOut:
    asked: Asked = {"route": "create batch", "archive": upload.sha256 if upload.size else None}
    with service.database.read() as connection:
        before = answered(connection, models.get(connection, name), key, asked=asked, kind=BatchOut)
    if before is not None:
        return before
    index = queueing.index_of(service, upload) if upload.size else None
    if index is not None:
        queueing.store(service, upload)
    with service.database.write() as connection:
        model = models.lock(connection, name)

        def give() -> BatchOut:
            batch = (
                batches.create(connection, model_id=model.id)
                if index is None
                else queueing.add_batch(service, connection, model, upload, index)
            )
            shown = records.batch(connection, batch)
            audit.record_change(connection, made={"batch": batch.id, "images": shown.images})
            return shown

        return once(connection, model, key, asked=asked, kind=BatchOut, give=give)


def _add(
    service: Service,
    batch_id: str,
    label: str,
    split: Split | None,
    files: list[tuple[str, bytes]],
    key: str | None,
) -> ImagesOut:
    """Store all images, or none if one of them cannot be read."""
    label = folded(label)
    if (fault := label_fault(label)) is not None:
        raise Invalid(f"label {label!r} {fault}")
    named = [(_filename(filename), data) for filename, data in files]
    asked: Asked = {
        "route": "add images",
        "batch": batch_id,
        "label": label,
        "split": split,
        "names": [name for name, _ in named],
        "digests": [hashlib.sha256(data).hexdigest() for _, data in named],
    }
    with service.database.read() as connection:
        batch = batches.get(connection, batch_id)
        model = models.by_id(connection, batch.model_id)
        held = classes.label_of(model, label)
        before = answered(connection, model, key, asked=asked, kind=ImagesOut)
    if before is not None:
        return before
    if batch.status is not BatchStatus.OPEN:  # checked before anything is stored, and again in the transaction
        raise BatchClosed(f"Batch {batch_id} is {batch.status}: start a new one with POST /v1/models/…/batches.")
    for filename, data in named:
        _check_image(service, model, filename, data)
    images = [_stored(service, batch_id, held, split, filename, data) for filename, data in named]
    service.blobs.sync()
    contents = {image.digest: data for image, (_, data) in zip(images, named, strict=True)}
    with service.database.write() as connection:

        def give() -> ImagesOut:
            batches.add_images(connection, batch_id, images)
            for deleted in references.keep(connection, contents, exists=service.blobs.exists):
                service.blobs.put(contents[deleted])  # the last image of the same content was erased meanwhile
            service.blobs.sync()
            audit.record_change(connection, made={"images": [image.id for image in images], "label": label})
            return ImagesOut(images=[ImageOut.model_validate(image) for image in images])

        locked = models.lock(connection, model.name)
        return once(connection, locked, key, asked=asked, kind=ImagesOut, give=give)


def _filename(sent: str) -> str:
    """The last component of a file name as a client sent it, without forbidden characters."""
    return FORBIDDEN.sub("", PurePosixPath(sent).name)[:MAX_FILENAME] or "image"


def _check_image(service: Service, model: Model, filename: str, data: bytes) -> None:
    """Decode an image as ingestion will; raises `TooLarge` and `ImageUnreadable`."""
    limit = service.settings.max_image_bytes
    if len(data) > limit:
        raise TooLarge(f"{filename}: {len(data):,} bytes, {limit:,} at most are allowed.", limit=limit)
    try:
        Form(model.channels, model.image_size).row(data, max_pixels=service.settings.max_image_pixels)
    except ImageRejected as rejected:
        detail = f"{filename}: {rejected}. Send JPEG, PNG, WebP, BMP or GIF."
        raise ImageUnreadable(detail, file=filename) from rejected


def _stored(service: Service, batch_id: str, label: str, split: Split | None, filename: str, data: bytes) -> Image:
    values: dict[str, Any] = {"label": label, "filename": filename, "split": split}
    return Image(id=new_id(), batch_id=batch_id, digest=service.blobs.put(data), size=len(data), **values)
