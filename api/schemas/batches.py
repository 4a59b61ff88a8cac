"""Batches: labelled images, and the files that were left out."""

from datetime import datetime

from pydantic import BaseModel

from api.schemas.base import Answer
from storage.domain import BatchStatus


class RejectOut(Answer):
    """A file that was left out, and why."""

    file: str
    reason: str


class IgnoredOut(Answer):
    """Files that were left out as no images, and no bad ones: how many, and the first few by name."""

    reason: str
    count: int
    files: list[str]


class ClassCountOut(Answer):
    """Images of one class; test is 0 until the batch is ingested, unless it brought a split of its own."""

    label: str
    train: int
    test: int


class BatchOut(Answer):
    """What is in a batch."""

    id: str
    model: str
    status: BatchStatus
    classes: list[ClassCountOut]
    images: int
    rejects: list[RejectOut]
    ignored: list[IgnoredOut]
    notes: list[str]
    digest: str | None
    created_at: datetime


class ImageOut(Answer):
    """An image just stored."""

    id: str
    label: str
    filename: str
    digest: str


class ImagesOut(Answer):
    """The images of one request."""

    images: list[ImageOut]


class ErasedOut(BaseModel):
    """How many images were erased."""

    erased: int
