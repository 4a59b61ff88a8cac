"""Uploads: batches, their images and packs, their rejects and ignored files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Split(StrEnum):
    """The side of an image: networks are trained on ``train`` images, and only evaluated on ``test`` images."""

    TRAIN = "train"
    TEST = "test"


class BatchStatus(StrEnum):
    """``open`` batches still take images; ``closed`` ones wait for their increment; ``ingested`` ones are decoded."""

    OPEN = "open"
    CLOSED = "closed"
    INGESTED = "ingested"


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Images of one class in a batch; ``test`` is 0 where the archive brings no split of its own."""

    label: str
    train: int
    test: int

    @property
    def images(self) -> int:
        """Images of both sides."""
        return self.train + self.test


@dataclass(frozen=True, slots=True)
class Reject:
    """A file of a batch that was left out, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Files of a batch that are not images and were not meant as images, with a few of their names."""

    reason: str
    count: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Uploaded labelled images, the material of one increment."""

    id: str
    model_id: str
    status: BatchStatus
    archive: str | None  # SHA-256 of the uploaded archive until it is ingested
    archive_kind: str | None  # "zip" or "tar"
    fingerprint: str | None  # SHA-256 of the archive as uploaded; stays after ingestion
    classes: tuple[ClassCount, ...]  # by label
    reject_count: int  # bad files, which `storage.material.rejects` names
    digest: str | None  # of labels, sides and contents once ingested
    created_at: datetime
    ignored: tuple[Ignored, ...] = ()
    notes: tuple[str, ...] = ()  # how unusual names in the archive were interpreted
    labels: Mapping[str, str] = field(default_factory=dict)  # of classes that the archive calls by another name


@dataclass(frozen=True, slots=True)
class Image:
    """One stored image of a batch: a file in a pack, or the blob ``digest`` (`storage.material.packs` reads both)."""

    id: str
    batch_id: str
    label: str
    filename: str
    digest: str  # SHA-256 of the file
    size: int  # bytes
    split: Split | None  # None until the batch is ingested
    shard: str | None = None  # the blob that holds its packed copy (storage.blobs.shards); None: it is not packed
    row: int | None = None  # number of its row in the shard, from 0
    pack: str | None = None  # the blob that holds its file among others; None: its file is a blob
    offset: int | None = None  # bytes before it in the pack


@dataclass(frozen=True, slots=True)
class Relabel:
    """An image was moved to another class after versions had learned from it, or had been measured on it."""

    image_id: str
    before: str  # labels
    after: str
    split: Split | None
    versions: tuple[int, ...]  # those that had, and stay as they are
    key_name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Pack:
    """A blob that holds many image files."""

    digest: str
    size: int  # bytes of all its files
