"""Versions, and records of what they predicted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from storage.domain.values import Json


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a version: where its bytes are, and how many."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable trained network with its lineage."""

    model_id: str
    number: int
    parent: int | None
    increment_id: str
    tasks: tuple[tuple[str, ...], ...]  # labels by task, in the order of the logits
    strategy: str
    recipe: Json
    files: Mapping[str, StoredFile]  # by name: docs/versions.md
    data_digest: str
    code_version: str
    seconds: Mapping[str, float]  # duration of each stage
    created_at: datetime
    edit: Json | None = (
        None  # an `Edit`, and "tasks": the number that each task had in the parent; None: it was trained
    )
    merged: Mapping[str, str] = field(default_factory=dict)  # classes of images by the label they were sent with
    deleted_at: datetime | None = None  # its files are gone; its place in the lineage and its metrics stay

    @property
    def classes(self) -> tuple[str, ...]:
        """Every label, in the order of the logits."""
        return tuple(label for task in self.tasks for label in task)

    @property
    def task(self) -> int:
        """The newest task it knows, from 0."""
        return len(self.tasks) - 1


@dataclass(frozen=True, slots=True)
class Export:
    """A file of a version that somebody asked for; a worker makes it."""

    model_id: str
    version: int
    file: str
    attempts: int  # begun so far
    lease_expires_at: datetime | None  # a process works on it until then
    agreement: Json | None  # how well the file agrees with the weights; None until it is made
    error: str | None  # why there will be none
    created_at: datetime  # when it was asked for


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was answered to one request, when, and by which version."""

    id: str
    model_id: str
    version: int
    predictions: tuple[tuple[tuple[str, float], ...], ...]  # per image, best first: (label, probability)
    created_at: datetime
    digests: tuple[str, ...] | None = None  # SHA-256 of each image file; None for pixels, and in earlier releases
    reference: str | None = None  # what the caller calls the request


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image file of a prediction that is kept beside the record."""

    prediction_id: str
    position: int  # among the images of the request, from 0
    model_id: str
    digest: str
    size: int  # bytes
    created_at: datetime  # that of the record
