"""Increments: one update of a model each, from the queue to its end."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.schemas.base import Answer, Request
from api.schemas.batches import RejectOut
from api.schemas.edits import EditOut
from storage.domain import IncrementStatus, KnownClasses, Promotion


class IncrementIn(Request):
    """An increment from a batch that was collected before."""

    batch_id: str
    strategy: str | None = None
    recipe: dict[str, Any] | None = None
    promote: Promotion | None = None
    known_classes: KnownClasses | None = None


class ProgressOut(BaseModel):
    """Where a running increment stands; what a stage does not count is null."""

    stage: str
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None


class AttemptOut(Answer):
    """One try at an increment; outcome is null while it runs."""

    attempt: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    reason: str | None


class IncrementOut(Answer):
    """An increment, from the queue to its end."""

    id: str
    model: str
    batch_id: str | None
    edit: EditOut | None
    status: IncrementStatus
    attempt: int
    strategy: str
    recipe: dict[str, Any]
    promote: Promotion
    known_classes: KnownClasses
    parent: int | None
    version: int | None
    promoted: bool | None
    note: str | None
    progress: ProgressOut | None
    notices: list[str] = Field(
        description="Consequences of its settings that are seldom wanted, and how to avoid them."
    )
    rejects: list[RejectOut]
    reject_count: int
    error: str | None
    attempts: list[AttemptOut]
    seconds: dict[str, float] = Field(description="Duration of each stage, once there is a version.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
