"""Edits: a version without training, of which classes were dropped or merged."""

from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.base import Request
from storage.domain import Promotion

MOST = 10_000  # classes of an edit

Label = Annotated[str, Field(min_length=1, max_length=1000)]


class MergeIn(Request):
    """Classes that become one; ``into`` is one of them, or a new name."""

    labels: Annotated[list[Label], Field(min_length=2, max_length=MOST)]
    into: Label


class EditIn(Request):
    """What to change in the head."""

    drop: Annotated[list[Label], Field(max_length=MOST, default_factory=list)]
    merge: Annotated[list[MergeIn], Field(max_length=MOST, default_factory=list)]
    promote: Promotion = Promotion.AUTO


class MergeOut(BaseModel):
    """Classes that became one."""

    labels: list[str]
    into: str


class EditOut(BaseModel):
    """What an edit changes."""

    drop: list[str]
    merge: list[MergeOut]
