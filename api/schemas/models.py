"""Models: a name, a network, and defaults for the increments to come."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from api.schemas.base import Answer, Request
from storage import domain
from storage.domain import KeepPredictions, Retention

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
ModelName = Annotated[str, Field(pattern=NAME, description="Letters, digits, '.', '_' and '-', 100 at most.")]


class MemoryIn(Request):
    """Exemplars kept for rehearsal: so many a class, or so many in all."""

    per_class: Annotated[int, Field(ge=1, le=100_000)] | None = None
    total: Annotated[int, Field(ge=1, le=10_000_000)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "MemoryIn":
        if (self.per_class is None) == (self.total is None):
            raise ValueError("give exactly one of per_class and total; for no rehearsal, memory itself is null")
        return self

    def record(self) -> domain.Memory:
        """As a domain record."""
        return domain.Memory(per_class=self.per_class, total=self.total)


def _offered(value: object) -> object:
    if value == "flagged":
        raise ValueError(
            "versions have no score yet of how unknown an image is, which could flag some: take all or none"
        )
    return value


KeptOfPredictions = Annotated[
    KeepPredictions,
    BeforeValidator(_offered),
    Field(description="Of which predictions the images are kept beside the record. With none, those kept go."),
]


class ModelIn(Request):
    """A new model; everything but its name has a default."""

    name: ModelName
    network: str = "resnet32"
    image_size: Annotated[int, Field(ge=8, le=1024, description="Pixels, height and width.")] = 32
    channels: Annotated[Literal[1, 3], Field(description="1 (grey) or 3 (colour).")] = 3
    strategy: str = "lwf-bsr"
    recipe: dict[str, Any] = Field(default_factory=dict, description="Hyper-parameters, see /v1/strategies.")
    memory: MemoryIn | None = MemoryIn(per_class=20)
    retention: Retention = Retention.ALL
    keep_predictions: KeptOfPredictions = KeepPredictions.NONE


class ModelChange(Request):
    """New defaults for coming increments; a field that is left out stays as it is."""

    strategy: str | None = None
    recipe: dict[str, Any] | None = None
    memory: MemoryIn | None = None
    retention: Retention | None = None
    keep_predictions: KeptOfPredictions | None = None


class ModelOut(Answer):
    """A model and where its history stands."""

    name: str
    network: str
    image_size: int
    channels: int
    strategy: str
    recipe: dict[str, Any]
    memory: dict[str, int] | None
    retention: Retention
    keep_predictions: KeepPredictions
    head: int | None
    current: int | None
    previous: int | None
    notices: list[str] = Field(
        description="Consequences of these defaults that are seldom wanted, and how to avoid them."
    )
    classes: list[str] = Field(description="Labels the head knows, in the order of its logits.")
    created_at: datetime
