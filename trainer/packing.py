"""Packed copies of images: each is decoded and resized once, and from then on read as it goes into a network."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch
from sqlalchemy import Connection
from torch import Tensor

from storage.blobs import shards
from storage.blobs.store import BlobStore
from storage.domain import Image
from storage.errors import BatchInvalid, BlobDamaged, BlobMissing, ImageNotFound
from storage.material import images as stored_images
from storage.material import packs, references
from storage.work import leases
from storage.work.leases import Claim
from trainer.logbook import ClaimLost
from trainer.networks.pictures import Form, ImageRejected
from trainer.rows import Rows, put_at
from trainer.tools import Tools


class PackingOvertaken(Exception):
    """Somebody erased images, or what held them, while they were packed: the next attempt does without them."""


def store(
    images: Iterable[Image], row: Callable[[Image], bytes], *, form: Form, folder: Path, blobs: BlobStore
) -> dict[str, tuple[str, int]]:
    """Write the images' rows into shards, and say where each is: digest and row, by the image's id.

    The order depends on nothing but the images. Each side has shards of its own, since retention may want to keep one
    of them only.
    """
    places: dict[str, tuple[str, int]] = {}
    ordered = sorted(images, key=lambda image: (str(image.split), image.label, image.digest, image.filename))
    for _side, side in groupby(ordered, key=lambda image: image.split):
        members = list(side)
        for start in range(0, len(members), shards.rows_per_shard(form.row_bytes)):
            part = members[start : start + shards.rows_per_shard(form.row_bytes)]
            path = folder / "shard"
            shards.write(path, map(row, part), count=len(part), row_bytes=form.row_bytes)
            digest = blobs.put_file(path)
            places.update({image.id: (digest, number) for number, image in enumerate(part)})
    return places


def pool(images: Sequence[Image], *, form: Form, claim: Claim, tools: Tools) -> Tensor:
    """All pixels, uint8 [images, channels, size, size] in channels-last order, in a file of the scratch folder.

    The file is mapped, so that its pages come and go with what is looked at. What has no packed copy, or a damaged one,
    is packed first and the place recorded, so that it is decoded once. Raises `ClaimLost`, `BlobMissing` and
    `BlobDamaged` (an original), and `BatchInvalid` for one that is no image to us any more.
    """
    path = tools.folder / "pixels"
    with path.open("x+b") as file:
        file.truncate(len(images) * form.row_bytes)
        missing = [position for position, image in enumerate(images) if image.shard is None]
        packed = dict(enumerate(images))
        missing += _copied(file.fileno(), packed, form=form, tools=tools)
        if missing:
            anew = _packed_anew([images[position] for position in missing], form=form, claim=claim, tools=tools)
            left = _copied(file.fileno(), dict(zip(missing, anew, strict=True)), form=form, tools=tools)
            if left:
                raise BlobDamaged("a shard cannot be read that was just written", sha256=str(anew[0].shard))
    mapped = torch.from_file(str(path), shared=True, size=len(images) * form.row_bytes, dtype=torch.uint8)
    return mapped.view(len(images), form.image_size, form.image_size, form.channels).permute(0, 3, 1, 2)


def _copied(descriptor: int, images: dict[int, Image], *, form: Form, tools: Tools) -> list[int]:
    """Write images from their shards to the places in the file that are their keys; keys of what could not be read."""
    by_shard: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, image in images.items():
        if image.shard is not None and image.row is not None:
            by_shard[image.shard][image.row].append(position)
    unread: list[int] = []
    done = 0
    for shard, rows in by_shard.items():
        try:
            for number, row in shards.read(tools.blobs, shard, list(rows), row_bytes=form.row_bytes):
                for position in rows[number]:
                    put_at(descriptor, row, position * form.row_bytes)
                done += len(rows[number])
                tools.report.progress(step=done, steps=len(images))
        except (BlobDamaged, BlobMissing) as error:
            tools.report.note(f"images are packed anew from their originals: {error.detail}")
            unread.extend(position for positions in rows.values() for position in positions)
    return unread


def _packed_anew(images: Sequence[Image], *, form: Form, claim: Claim, tools: Tools) -> list[Image]:
    """The images with new places, in their order."""
    limit = tools.settings.max_image_pixels

    def decoded(numbered: tuple[int, Image]) -> None:
        number, image = numbered
        try:
            data = packs.original(image, database=tools.database, blobs=tools.blobs)
        except ImageNotFound as error:
            raise PackingOvertaken(error.detail) from error
        try:
            rows.put(number, form.row(data, max_pixels=limit))
        except ImageRejected as rejected:  # another attempt would find the same
            raise BatchInvalid(
                f"{image.filename!r} of class {image.label!r} cannot be used any more ({rejected.reason}): erase it "
                f"with DELETE /v1/images/{image.id} and retry, or set the limits of images as they were when it came."
            ) from rejected

    with Rows(tools.folder, row_bytes=form.row_bytes) as rows, ThreadPoolExecutor(tools.threads) as workers:
        for done, _ in enumerate(workers.map(decoded, enumerate(images)), start=1):
            tools.report.progress(step=done, steps=len(images))
        number = {image.id: number for number, image in enumerate(images)}
        with tools.report.opaque():
            places = store(
                images, lambda image: rows.get(number[image.id]), form=form, folder=tools.folder, blobs=tools.blobs
            )
            tools.blobs.sync()
    placed = []
    for image in images:
        shard, row = places[image.id]
        placed.append(replace(image, shard=shard, row=row))

    def record(connection: Connection) -> bool:
        if not leases.holds(connection, claim):
            raise ClaimLost
        gone = stored_images.place(connection, placed)
        deleted = references.keep(connection, {str(image.shard) for image in placed}, exists=tools.blobs.exists)
        references.release(connection, {image.shard for image in images if image.shard is not None})
        return bool(gone or deleted)

    overtaken = tools.write(record)
    tools.dispose()
    if overtaken:
        raise PackingOvertaken("images were erased while they were packed")
    return placed
