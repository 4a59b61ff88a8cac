"""The pixels that an increment learns from, in a file of the attempt's folder."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from sqlalchemy import Connection
from torch import Tensor

from storage.blobs import shards
from storage.domain import Image
from storage.errors import BatchInvalid, BlobDamaged, BlobMissing, ImageNotFound
from storage.material import images as stored_images
from storage.material import packs, references
from storage.work import leases
from storage.work.leases import Claim, ClaimLost
from trainer.ingestion.packing import store
from trainer.ingestion.rows import Rows, put_at
from trainer.networks.pictures import Form, ImageRejected
from trainer.process.context import AttemptContext


class PackingOvertaken(Exception):
    """Images, or a blob that held them, were deleted while they were packed: the next attempt trains without them."""


def pool(images: Sequence[Image], *, form: Form, claim: Claim, context: AttemptContext) -> Tensor:
    """All pixels, uint8 [images, channels, size, size] in channels-last order, in a file of the scratch folder.

    The file is mapped, so only the pages in use need memory. An image without a packed copy, or with a damaged one, is
    packed first and its place recorded, so that it is decoded only once. Raises `ClaimLost`, `PackingOvertaken`,
    `BlobMissing` and `BlobDamaged` (of an original), and `BatchInvalid` for an original that can no longer be decoded.
    """
    path = context.folder / "pixels"
    with path.open("x+b") as file:
        file.truncate(len(images) * form.row_bytes)
        missing = [position for position, image in enumerate(images) if image.shard is None]
        packed = dict(enumerate(images))
        missing += _copied(file.fileno(), packed, form=form, context=context)
        if missing:
            anew = _packed_anew([images[position] for position in missing], form=form, claim=claim, context=context)
            left = _copied(file.fileno(), dict(zip(missing, anew, strict=True)), form=form, context=context)
            if left:
                raise BlobDamaged("a shard cannot be read that was just written", sha256=str(anew[0].shard))
    mapped = torch.from_file(str(path), shared=True, size=len(images) * form.row_bytes, dtype=torch.uint8)
    return mapped.view(len(images), form.image_size, form.image_size, form.channels).permute(0, 3, 1, 2)


def _copied(descriptor: int, images: dict[int, Image], *, form: Form, context: AttemptContext) -> list[int]:
    """Copy images from their shards to the file; each key is the row in the file. Returns keys that were not read."""
    by_shard: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, image in images.items():
        if image.shard is not None and image.row is not None:
            by_shard[image.shard][image.row].append(position)
    unread: list[int] = []
    done = 0
    for shard, rows in by_shard.items():
        try:
            for number, row in shards.read(context.blobs, shard, list(rows), row_bytes=form.row_bytes):
                for position in rows[number]:
                    put_at(descriptor, row, position * form.row_bytes)
                done += len(rows[number])
                context.report.progress(step=done, steps=len(images))
        except (BlobDamaged, BlobMissing) as error:
            context.report.note(f"images are packed anew from their originals: {error.detail}")
            unread.extend(position for positions in rows.values() for position in positions)
    return unread


def _packed_anew(images: Sequence[Image], *, form: Form, claim: Claim, context: AttemptContext) -> list[Image]:
    """The images packed into new shards, with the new places recorded; in the same order."""
    limit = context.settings.max_image_pixels

    def decoded(numbered: tuple[int, Image]) -> None:
        number, image = numbered
        try:
            data = packs.original(image, database=context.database, blobs=context.blobs)
        except ImageNotFound as error:
            raise PackingOvertaken(error.detail) from error
        try:
            rows.put(number, form.row(data, max_pixels=limit))
        except ImageRejected as rejected:  # another attempt would fail in the same way
            raise BatchInvalid(
                f"{image.filename!r} of class {image.label!r} cannot be used any more ({rejected.reason}): erase it "
                f"with DELETE /v1/images/{image.id} and retry, or set the limits of images as they were when it came."
            ) from rejected

    with Rows(context.folder, row_bytes=form.row_bytes) as rows, ThreadPoolExecutor(context.threads) as workers:
        for done, _ in enumerate(workers.map(decoded, enumerate(images)), start=1):
            context.report.progress(step=done, steps=len(images))
        number = {image.id: number for number, image in enumerate(images)}
        with context.report.opaque():
            places = store(
                images, lambda image: rows.get(number[image.id]), form=form, folder=context.folder, blobs=context.blobs
            )
            context.blobs.sync()
    placed = []
    for image in images:
        shard, row = places[image.id]
        placed.append(replace(image, shard=shard, row=row))

    def record(connection: Connection) -> bool:
        if not leases.holds(connection, claim):
            raise ClaimLost
        gone = stored_images.place(connection, placed)
        deleted = references.keep(connection, {str(image.shard) for image in placed}, exists=context.blobs.exists)
        references.release(connection, {image.shard for image in images if image.shard is not None})
        return bool(gone or deleted)

    overtaken = context.write(record)
    context.dispose()
    if overtaken:
        raise PackingOvertaken("images were erased while they were packed")
    return placed
