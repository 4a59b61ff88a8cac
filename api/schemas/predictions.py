"""Predictions: the most probable classes of an image, and the record that is kept."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Header
from pydantic import BaseModel, Field

from api.schemas.base import Request

DEADLINE_HEADER = "Accrete-Deadline-Seconds"
Deadline = Annotated[
    float | None,
    Header(
        alias=DEADLINE_HEADER,
        gt=0,
        le=86_400,
        description="How long the answer may take, if less than the service allows.",
    ),
]
REFERENCE = r"^[^\x00-\x1f\x7f-\x9f]{1,200}$"  # without control characters, which databases do not all take
Reference = Annotated[
    str, Field(pattern=REFERENCE, description="The caller's own name for the request; kept with its record.")
]


class RankedOut(BaseModel):
    """One of the most probable classes."""

    label: str
    probability: float


class ImagesIn(Request):
    """Images, each a base64-encoded image file; the other fields may also be sent in a form or in the query."""

    images: Annotated[list[str], Field(min_length=1)]


class PredictionIn(ImagesIn):
    """Images to classify."""

    top_k: Annotated[int, Field(ge=1, le=1000, description="Classes per image, best first.")] = 5
    version: Annotated[int | None, Field(ge=1, description="Default: the version in service.")] = None
    record: Annotated[Literal["behind", "durable"], Field(description="durable waits for the commit.")] = "behind"
    reference: Reference | None = None


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
    digests: list[str] | None = Field(
        description="SHA-256 of each image file; null for pixels, and in records of releases that kept none."
    )
    reference: str | None
    kept: list[int] = Field(
        description="Positions, from 0, of the images that are kept: GET /v1/predictions/{prediction_id}/images/…"
    )
    created_at: datetime


class ImagePredictionOut(BaseModel):
    """The current version's prediction for a stored image."""

    image: str
    label: str
    model: str
    version: int
    predictions: list[RankedOut]
