"""Packed copies of images: an image is decoded and resized once, then read in the form in which a network takes it."""

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from storage.blobs import shards
from storage.blobs.store import BlobStore
from storage.domain import Image
from trainer.networks.pictures import Form


def store(
    images: Iterable[Image], row: Callable[[Image], bytes], *, form: Form, folder: Path, blobs: BlobStore
) -> dict[str, tuple[str, int]]:
    """Write the images' rows into shards; the place of each image, shard digest and row number, by its id.

    The order depends only on the images. Each split has shards of its own, since retention may keep one split only.
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
