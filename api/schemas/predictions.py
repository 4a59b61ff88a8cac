"""Predictions: the most probable classes of an image, and the record that is kept."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.base import Request


class RankedOut(BaseModel):
    """One of the most probable classes."""

    label: str
    probability: float


class PredictionIn(Request):
    """Images to classify, each a base64-encoded image file."""

    images: Annotated[list[str], Field(min_length=1)]


class PredictionOut(BaseModel):
    """Per image the most probable classes, best first; ``id`` is null when no record is kept."""

    id: str | None
    model: str
    version: int
    predictions: list[list[RankedOut]]


class PredictionRecordOut(BaseModel):
    """What was answered, when, and by which version."""

    id: str
    model: str
    version: int
    predictions: list[list[RankedOut]]
    created_at: datetime


class ImagePredictionOut(BaseModel):
    """The current version's prediction for a stored image."""

    image: str
    label: str
    model: str
    version: int
    predictions: list[RankedOut]
