"""The job that turns a batch into a version: its state, its attempts, its events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from storage.domain.batches import Reject
from storage.domain.edits import Edit
from storage.domain.models import Memory
from storage.domain.names import Names
from storage.domain.values import Json


class IncrementStatus(StrEnum):
    """Life of an increment; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the increment has ended; only an explicit retry changes this status."""
        return self not in {IncrementStatus.QUEUED, IncrementStatus.RUNNING}


UNFINISHED = (IncrementStatus.QUEUED, IncrementStatus.RUNNING)


class Promotion(StrEnum):
    """``auto`` puts the new version into service if current is still its parent; ``manual`` never does."""

    AUTO = "auto"
    MANUAL = "manual"


class KnownClasses(StrEnum):
    """What to do with a batch that holds classes the model already knows."""

    REFUSE = "refuse"
    REHEARSE = "rehearse"


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A training's state at the end of an epoch: a blob from which another attempt resumes."""

    sha256: str
    bytes: int
    epoch: int  # complete epochs, from 1


@dataclass(frozen=True, slots=True)
class Unshown:
    """Old classes without images in an increment's batch, as they were when the increment was queued."""

    known: int  # how many old classes there were
    unsent: tuple[str, ...]  # old classes without images in the batch
    unstored: tuple[str, ...]  # those of `unsent` without stored images for a memory to bring


@dataclass(frozen=True, slots=True)
class Increment:
    """The job that makes a version: from a batch, or by an edit."""

    id: str
    arrival: int  # position in the order of arrival, over all models
    model_id: str
    batch_id: str | None  # None for an edit
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
    worker: str | None  # the one that holds the lease
    cancel_requested: bool
    parent: int | None  # version it started from, known from the claim on
    version: int | None  # version it made
    promoted: bool | None  # None until there is a version
    note: str | None  # why the version was not promoted
    progress: Json | None
    error: str | None
    unshown: Unshown | None  # None in rows of earlier releases
    edit: Edit | None  # what to change instead of learning from a batch
    created_at: datetime
    started_at: datetime | None  # first claim
    finished_at: datetime | None

    @property
    def batch(self) -> str:
        """Id of the batch that it learns from; raises ValueError for an edit."""
        if self.batch_id is None:
            raise ValueError(f"increment {self.id} is an edit: it learns from no batch")
        return self.batch_id


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
class IncrementReport:
    """An increment with its attempts, its rejects and what else is shown with it."""

    increment: Increment
    model: str  # its name
    memory: Memory | None  # of the model, as it is now
    names: Names  # of the model's classes
    reject_count: int  # bad files of its batch
    seconds: Mapping[str, float]  # duration by stage; empty until it has made a version
    rejects: tuple[Reject, ...] = ()  # the first of the bad files
    attempts: tuple[Attempt, ...] = ()  # first to last


@dataclass(frozen=True, slots=True)
class Event:
    """One durable step in an increment's life; ``sequence`` counts from 1 within the increment."""

    increment_id: str
    sequence: int
    kind: str  # status, stage or epoch
    data: Json
    created_at: datetime
