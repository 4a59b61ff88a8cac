"""Batches: labelled images, and the files that were left out."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.base import Answer, Request
from api.schemas.predictions import ImagesIn
from storage.domain import BatchStatus, Split


class RejectOut(Answer):
    """A file that was left out, and why."""

    file: str
    reason: str


class IgnoredOut(Answer):
    """Files that were left out because they are neither images nor rejects: how many, and some of their names."""

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
    reject_count: int
    ignored: list[IgnoredOut]
    notes: list[str]
    digest: str | None
    increment_id: str | None = None
    created_at: datetime


class AddedImagesIn(ImagesIn):
    """Images of one class."""

    label: Annotated[str | None, Field(min_length=1, max_length=1000)] = None
    split: Annotated[Split | None, Field(description="Side of the images; left out, their content decides.")] = None


class ImageOut(Answer):
    """An image just stored."""

    id: str
    label: str
    filename: str
    digest: str


class StoredImageOut(BaseModel):
    """A stored image, without its file."""

    id: str
    batch_id: str
    label: str
    filename: str
    digest: str
    bytes: int
    split: Split | None


class ImageChange(Request):
    """Another class for an image."""

    label: Annotated[str, Field(min_length=1, max_length=1000, description="Class of the image from now on.")]


class RelabelledOut(StoredImageOut):
    """An image that was moved to another class, and what that means for versions."""

    former_label: str
    versions: list[int]
    note: str


class RelabelOut(BaseModel):
    """An image was moved to another class, after versions had learned from it or had been measured on it."""

    image_id: str
    before: str
    after: str
    split: Split | None
    versions: list[int]
    key: str
    created_at: datetime


class ClassChange(Request):
    """A new name for a class."""

    label: Annotated[str, Field(min_length=1, max_length=1000, description="What the class is called from now on.")]


class ClassOut(BaseModel):
    """A class and its stored images; ``id`` is the label by which it is held, in the files of versions too."""

    label: str
    id: str
    task: int | None
    train: int
    test: int
    examples: list[str]


class ClassesOut(BaseModel):
    """The classes of a model: those that its head knows in the order of the logits, then the others by name."""

    model: str
    classes: list[ClassOut]


class ImagesOut(Answer):
    """The images of one request."""

    images: list[ImageOut]


class ErasedOut(BaseModel):
    """How many images were erased."""

    erased: int
