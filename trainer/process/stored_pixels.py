"""Pixels of the evaluation images of a version that was published before, from their packed copies."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

import torch
from sqlalchemy import Connection
from torch import Tensor

from storage.blobs import shards
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import Image, Model, Version
from storage.errors import BlobDamaged, BlobMissing
from storage.history import evaluation, versions
from storage.material import batches
from trainer.networks.pictures import Form
from trainer.process.executable import spread


def evaluation_pixels(model: Model, version: Version, *, database: Database, blobs: BlobStore) -> Tensor:
    """Some of the images that the version was measured on, uint8 [images, channels, size, size]; none may be left."""
    with database.read() as connection:
        stored = _measured(connection, model, version)
    return _read(stored, Form(channels=model.channels, image_size=model.image_size), blobs)


def _measured(connection: Connection, model: Model, version: Version) -> list[Image]:
    """The evaluation images of the version's tasks that are still stored."""
    line = versions.lineage(connection, model, version.number)
    of_line = batches.of_increments(connection, [ancestor.increment_id for ancestor in line])
    return list(chain.from_iterable(evaluation.of_tasks(connection, line, of_line)))


def _read(stored: Sequence[Image], form: Form, blobs: BlobStore) -> Tensor:
    """Some of the images, uint8 [images, channels, size, size]: those whose packed copies can be read."""
    by_shard: dict[str, set[int]] = defaultdict(set)
    for image in (stored[position] for position in spread(len(stored))):
        if image.shard is not None and image.row is not None:
            by_shard[image.shard].add(image.row)
    read: list[Tensor] = []
    for shard, rows in by_shard.items():
        with suppress(BlobDamaged, BlobMissing):  # the next increment packs them anew
            for _, row in shards.read(blobs, shard, list(rows), row_bytes=form.row_bytes):
                read.append(torch.frombuffer(bytearray(row), dtype=torch.uint8))
    shape = (len(read), form.image_size, form.image_size, form.channels)
    joined = torch.stack(read)[spread(len(read))] if read else torch.empty(0, form.row_bytes, dtype=torch.uint8)
    return joined.view(shape).permute(0, 3, 1, 2).contiguous()
