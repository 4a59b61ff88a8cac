"""Packed copies of images: each is decoded and resized once, and from then on read as it goes into a network."""

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
