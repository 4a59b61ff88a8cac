"""Packed copies of images: each is decoded and resized once, and from then on read as it goes into a network."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from storage import images as stored_images
from storage import leases, shards
from storage.blobs import BlobStore
from storage.domain import Image
from storage.errors import BlobDamaged, BlobMissing
from storage.leases import Claim
from trainer.attempt import ClaimLost
from trainer.networks.transforms import decode, resized
from trainer.tools import Tools


@dataclass(frozen=True)
class Form:
    """What a model's images are brought to."""

    channels: int
    image_size: int

    @property
    def row_bytes(self) -> int:
        """Length of a packed image: height × width × channels, a byte each."""
        return self.image_size * self.image_size * self.channels

    def row(self, data: bytes, *, max_pixels: int) -> bytes:
        """A packed image from an image file; raises ImageRejected for what is none."""
        return resized(decode(data, channels=self.channels, max_pixels=max_pixels), self.image_size).tobytes()


class Rows:
    """Packed images by number in a file without a name, until it is known where they belong; memory stays bounded."""

    def __init__(self, folder: Path, form: Form) -> None:
        """Use disk space in ``folder`` while open."""
        self._length = form.row_bytes
        path = folder / "rows"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()

    def __enter__(self) -> "Rows":
        """Use it as it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the space back."""
        os.close(self._descriptor)

    def put(self, number: int, row: bytes) -> None:
        """Keep a row; from any thread."""
        _put_at(self._descriptor, row, number * self._length)

    def get(self, number: int) -> bytes:
        """A row that was put."""
        return os.pread(self._descriptor, self._length, number * self._length)


def store(
    images: Iterable[Image], row: Callable[[Image], bytes], *, form: Form, folder: Path, blobs: BlobStore
) -> tuple[Image, ...]:
    """Write the images' rows into shards and return them with their places; the order depends on nothing but them.

    Each side has shards of its own, since retention may want to keep one of them only.
    """
    placed: list[Image] = []
    ordered = sorted(images, key=lambda image: (str(image.split), image.label, image.digest, image.filename))
    for _side, side in groupby(ordered, key=lambda image: image.split):
        members = list(side)
        for start in range(0, len(members), shards.rows_per_shard(form.row_bytes)):
            part = members[start : start + shards.rows_per_shard(form.row_bytes)]
            path = folder / "shard"
            shards.write(path, map(row, part), count=len(part), row_bytes=form.row_bytes)
            digest = blobs.put_file(path)
            placed.extend(replace(image, shard=digest, row=number) for number, image in enumerate(part))
    return tuple(placed)


def pool(images: Sequence[Image], *, form: Form, claim: Claim, tools: Tools) -> Tensor:
    """All pixels, uint8 [images, channels, size, size] in channels-last order, in a file of the scratch folder.

    The file is mapped, so that its pages come and go with what is looked at. What has no packed copy, or a damaged one,
    is packed first and the place recorded, so that it is decoded once. Raises `ClaimLost`, `BlobMissing` and
    `BlobDamaged` (an original), and ImageRejected.
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
                    _put_at(descriptor, row, position * form.row_bytes)
                done += len(rows[number])
                tools.report.progress(step=done, steps=len(images))
        except (BlobDamaged, BlobMissing) as error:
            tools.report.note(f"images are packed anew from their originals: {error.detail}")
            unread.extend(position for positions in rows.values() for position in positions)
    return unread


def _put_at(descriptor: int, row: bytes | memoryview, offset: int) -> None:
    written = os.pwrite(descriptor, row, offset)
    if written != len(row):  # what a full disk does to the last write before it refuses one
        raise OSError(f"{written} of {len(row)} bytes could be written to the scratch folder: its disk is full")


def _packed_anew(images: Sequence[Image], *, form: Form, claim: Claim, tools: Tools) -> tuple[Image, ...]:
    """The images with new places, in their order."""
    limit = tools.settings.max_image_pixels

    def decoded(numbered: tuple[int, Image]) -> None:
        number, image = numbered
        rows.put(number, form.row(tools.blobs.get(image.digest), max_pixels=limit))

    with Rows(tools.folder, form) as rows, ThreadPoolExecutor(tools.threads) as workers:
        for done, _ in enumerate(workers.map(decoded, enumerate(images)), start=1):
            tools.report.progress(step=done, steps=len(images))
        number = {image.id: number for number, image in enumerate(images)}
        placed = store(
            images, lambda image: rows.get(number[image.id]), form=form, folder=tools.folder, blobs=tools.blobs
        )
    tools.blobs.sync()
    with tools.database.write() as connection:
        if not leases.holds(connection, claim):
            raise ClaimLost
        stored_images.place(connection, placed)
        unneeded = stored_images.unreferenced(connection, {image.shard for image in images if image.shard is not None})
    for digest in unneeded:
        tools.blobs.delete(digest)
    places = {image.id: image for image in placed}
    return tuple(places[image.id] for image in images)
