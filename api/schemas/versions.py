"""Versions: trained networks, and which of them is in service."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from api.schemas.base import Answer, Request
from api.schemas.edits import EditOut

REASON = r"^[^\x00-\x08\x0b-\x1f\x7f]+$"  # no control characters but tabs and line breaks


class FileOut(Answer):
    """A file of a version."""

    sha256: str
    bytes: int


class Summary(BaseModel):
    """The headline of a version's metrics; null where nothing was measured."""

    average_accuracy: float | None
    forgetting: float | None


class VersionOut(Answer):
    """An immutable trained network with its lineage."""

    model: str
    version: int
    parent: int | None
    task: int
    classes: list[str]
    tasks: list[list[str]]
    strategy: str
    recipe: dict[str, Any]
    increment_id: str
    files: dict[str, FileOut]
    data_digest: str
    code_version: str
    seconds: dict[str, float]
    current: bool
    head: bool
    summary: dict[str, Summary]
    edit: EditOut | None
    created_at: datetime


class CurrentIn(Request):
    """The version to put into service, and why."""

    version: Annotated[int, Field(ge=1)]
    reason: Annotated[str, Field(max_length=1000, pattern=REASON)] | None = None


class CurrentOut(BaseModel):
    """The version in service and the one before; ``revision`` counts promotions, and is what the ETag names."""

    model: str
    version: int | None
    previous: int | None
    revision: int


class PromotionOut(BaseModel):
    """A version was put into service; ``key`` is null where an increment promoted its own version."""

    version: int
    previous: int | None
    revision: int
    key: str | None
    increment_id: str | None
    reason: str | None
    created_at: datetime | None
