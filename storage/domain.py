"""The nouns of the service as frozen records; standard library only.

Every stage of the way – upload, batch, increment, version, serving – reads the record the stage before it wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import uuid4

Json = Mapping[str, Any]
Item = TypeVar("Item")


def new_id() -> str:
    """A fresh identifier: 32 hexadecimal digits of a random UUID."""
    return uuid4().hex


def now() -> datetime:
    """The present moment in UTC; the only clock the records are stamped by."""
    return datetime.now(UTC)


class Retention(StrEnum):
    """What stays of a batch's images once its version is published (DESIGN, Evaluation images)."""

    ALL = "all"
    EXEMPLARS = "exemplars"
    NONE = "none"


class Split(StrEnum):
    """The side an image is on: what is learned from, and what is only ever measured on."""

    TRAIN = "train"
    TEST = "test"


class BatchStatus(StrEnum):
    """``open`` batches still take images; ``closed`` ones wait for their increment; ``ingested`` ones are decoded."""

    OPEN = "open"
    CLOSED = "closed"
    INGESTED = "ingested"


class IncrementStatus(StrEnum):
    """Life of an increment; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing but an explicit retry changes it any more."""
        return self not in {IncrementStatus.QUEUED, IncrementStatus.RUNNING}


class Promotion(StrEnum):
    """``auto`` puts the new version into service if current is still its parent; ``manual`` never does."""

    AUTO = "auto"
    MANUAL = "manual"


class KnownClasses(StrEnum):
    """What to do with a batch that holds classes the model already knows."""

    REFUSE = "refuse"
    REHEARSE = "rehearse"


@dataclass(frozen=True, slots=True)
class Memory:
    """How many exemplars a version keeps: so many a class, or so many in all; exactly one of the two is set."""

    per_class: int | None = None
    total: int | None = None

    def __post_init__(self) -> None:
        """Refuse both or neither."""
        if (self.per_class is None) == (self.total is None):
            raise ValueError(f"memory needs exactly one of per_class and total, got {self!r}")

    def share(self, classes: int) -> int:
        """Exemplars of one class when the version knows ``classes`` of them."""
        return self.per_class if self.per_class is not None else (self.total or 0) // classes


@dataclass(frozen=True, slots=True)
class Model:
    """A named classifier with its own history of versions."""

    id: str
    name: str
    network: str
    image_size: int  # pixels, height and width
    channels: int  # 1 or 3
    strategy: str  # default of its increments
    recipe: Json  # default hyper-parameters; the increment's own go on top
    memory: Memory | None  # None: no rehearsal
    retention: Retention
    created_at: datetime
    head: int | None  # version the next increment starts from
    current: int | None  # version in service
    previous: int | None  # version in service before
    current_revision: int  # counts promotions: the ETag of `current`
    last_version: int  # highest number given so far; numbers are never given twice


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
    """Files of a batch that are no images and were not meant as such; a few of them by name."""

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
    reject_count: int  # bad files, which `storage.rejects` names
    digest: str | None  # of labels, sides and contents once ingested
    created_at: datetime
    ignored: tuple[Ignored, ...] = ()
    notes: tuple[str, ...] = ()  # how the names in the archive were understood, where that is not plain


@dataclass(frozen=True, slots=True)
class Image:
    """One stored image of a batch: a file in a pack, or the blob ``digest`` (`storage.packs.original` reads both)."""

    id: str
    batch_id: str
    label: str
    filename: str
    digest: str  # SHA-256 of the file
    size: int  # bytes
    split: Split | None  # None until the batch is ingested
    shard: str | None = None  # the blob that holds its packed copy (storage.shards); None: it is not packed
    row: int | None = None  # where in the shard
    pack: str | None = None  # the blob that holds its file among others (storage.packs); None: it has one of its own
    offset: int | None = None  # bytes before it in the pack


@dataclass(frozen=True, slots=True)
class Pack:
    """A blob that holds many image files."""

    digest: str
    size: int  # bytes of all its files


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """Where a training stood at the end of an epoch: a blob from which another attempt goes on."""

    sha256: str
    bytes: int
    epoch: int  # complete epochs, from 1


@dataclass(frozen=True, slots=True)
class Increment:
    """The job that turns a batch into a version."""

    id: str
    arrival: int  # position in the order of arrival, over all models
    model_id: str
    batch_id: str
    status: IncrementStatus
    strategy: str
    recipe: Json  # complete: every field has its value
    promote: Promotion
    known_classes: KnownClasses
    idempotency_key: str | None
    asked: str | None  # fingerprint of the request that had the key
    attempt: int  # fencing number: 0 before the first claim, raised by every claim
    crashes: int  # attempts in a row that ended without a result or a new checkpoint
    checkpoint: StoredCheckpoint | None  # the latest, while the increment is not finished
    lease_expires_at: datetime | None
    worker: str | None  # who holds the lease
    cancel_requested: bool
    parent: int | None  # version it started from, known from the claim on
    version: int | None  # version it made
    promoted: bool | None  # None until there is a version
    note: str | None  # why the version was not promoted
    progress: Json | None
    error: str | None
    created_at: datetime
    started_at: datetime | None  # first claim
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an increment and how it ended; ``outcome`` is None while it runs."""

    increment_id: str
    attempt: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None  # succeeded, failed, crashed, cancelled, released
    reason: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """One durable step in an increment's life; ``sequence`` counts from 1 within the increment."""

    increment_id: str
    sequence: int
    kind: str  # status, stage or epoch
    data: Json
    created_at: datetime


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
    files: Mapping[str, StoredFile]  # weights.safetensors, version.json
    data_digest: str
    code_version: str
    seconds: Mapping[str, float]  # duration of each stage
    created_at: datetime
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
class Prediction:
    """What was answered to one request, when, and by which version."""

    id: str
    model_id: str
    version: int
    predictions: tuple[tuple[tuple[str, float], ...], ...]  # per image, best first: (label, probability)
    created_at: datetime


class Scope(StrEnum):
    """What a key may do: ask for predictions and look; teach too; or everything."""

    PREDICT = "predict"
    TRAIN = "train"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is stored: never the key itself."""

    id: str
    name: str
    digest: str  # SHA-256 of the key
    scopes: frozenset[Scope]
    model_id: str | None  # the one model it is good for; None: for all
    rate: float | None  # requests a second; None: as many as it likes
    created_at: datetime
    revoked_at: datetime | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether it may do what needs that scope: train includes predict, and admin both."""
        order = list(Scope)
        return any(order.index(held) >= order.index(scope) for held in self.scopes)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who asked for what change, and how that ended."""

    number: int
    created_at: datetime
    key_id: str | None  # None: nobody needed a key
    key_name: str
    client: str  # address of the other end
    action: str  # method and route, such as "DELETE /v1/images/{image_id}"
    path: str  # as it was asked for
    status: int | None  # of the answer; None: it was never given, or not yet


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A slice of a list and the cursor of the next one."""

    items: tuple[Item, ...]
    next_cursor: str | None
