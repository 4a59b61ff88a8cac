"""Batches: collect labelled images piecemeal, see what is there, then ask for an increment from them."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from api import admission, views
from api.bodies import images_of
from api.problems import problems
from api.schemas import BatchOut, ImageOut, ImagesOut
from api.service import Service, ServiceDep
from api.uploads import Upload, received
from storage import archives, batches, models
from storage.archive_names import label_fault
from storage.archives import ArchiveLimits
from storage.domain import Image, Split, new_id
from storage.errors import (
    ArchiveUnreadable,
    ArchiveUnsafe,
    BatchClosed,
    BatchInvalid,
    BatchNotFound,
    ImageUnreadable,
    Invalid,
    ModelNotFound,
    TooLarge,
)
from trainer.networks import ImageRejected, decode

router = APIRouter(prefix="/v1", tags=["batches"])


@router.post(
    "/models/{name}/batches",
    status_code=201,
    responses=problems(ModelNotFound, BatchInvalid, ArchiveUnreadable, ArchiveUnsafe, TooLarge),
)
async def create_batch(name: str, request: Request, service: ServiceDep) -> BatchOut:
    """Start a batch: empty, to be filled image by image, or with the archive that is the body."""
    async with received(request, service.settings) as upload:
        return await run_in_threadpool(_create, service, name, upload)


@router.get("/batches/{batch_id}", responses=problems(BatchNotFound))
def get_batch(batch_id: str, service: ServiceDep) -> BatchOut:
    """See what is in a batch: its classes, their counts, and what was left out."""
    with service.database.read() as connection:
        return views.batch(connection, batches.get(connection, batch_id))


@router.post(
    "/batches/{batch_id}/images",
    status_code=201,
    responses=problems(BatchNotFound, BatchClosed, BatchInvalid, ImageUnreadable, TooLarge),
)
async def add_images(
    batch_id: str,
    request: Request,
    service: ServiceDep,
    label: Annotated[str, Query(min_length=1, max_length=200)],
    split: Annotated[Split | None, Query(description="Side of the images; left out, their content decides.")] = None,
) -> ImagesOut:
    """Add images of one class to an open batch: an image as the body, or several as multipart files."""
    files = await images_of(request)
    return await run_in_threadpool(_add, service, batch_id, label, split, files)


def _create(service: Service, name: str, upload: Upload) -> BatchOut:
    if upload.size == 0:
        with service.database.write() as connection:
            model = models.get(connection, name)
            return views.batch(connection, batches.create(connection, model_id=model.id))
    with service.database.read() as connection:
        models.get(connection, name)
    index = archives.scan(upload.path, limits=ArchiveLimits.of(service.settings))
    admission.store(service, upload)
    with service.database.write() as connection:
        model = models.get(connection, name)
        return views.batch(connection, admission.add_batch(connection, model, upload, index))


def _add(
    service: Service, batch_id: str, label: str, split: Split | None, files: list[tuple[str, bytes]]
) -> ImagesOut:
    """Store every image or, if one cannot be read, none."""
    fault = label_fault(label)
    if fault is not None:
        raise Invalid(f"label {label!r} {fault}")
    for filename, data in files:
        try:
            decode(data, channels=3, max_pixels=service.settings.max_image_pixels)
        except ImageRejected as rejected:
            raise ImageUnreadable(f"{filename}: {rejected}. Send JPEG, PNG, WebP, BMP or GIF.", file=filename) from rejected
    with service.database.read() as connection:
        batches.get(connection, batch_id)
    images = [_stored(service, batch_id, label, split, filename, data) for filename, data in files]
    service.blobs.sync()
    with service.database.write() as connection:
        batches.add_images(connection, batch_id, images)
    return ImagesOut(images=[ImageOut.model_validate(image) for image in images])


def _stored(service: Service, batch_id: str, label: str, split: Split | None, filename: str, data: bytes) -> Image:
    values: dict[str, Any] = {"label": label, "filename": PurePosixPath(filename).name or "image", "split": split}
    return Image(id=new_id(), batch_id=batch_id, digest=service.blobs.put(data), size=len(data), **values)
