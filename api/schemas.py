"""What goes over the wire: requests checked by pydantic, answers made from the records of `storage.domain`."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage import domain
from storage.domain import (
    BatchStatus,
    IncrementStatus,
    KnownClasses,
    Promotion,
    Retention,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
ModelName = Annotated[str, Field(pattern=NAME, description="Letters, digits, '.', '_' and '-', 100 at most.")]
Item = TypeVar("Item")


class Answer(BaseModel):
    """Base of all answers: built from a record's attributes."""

    model_config = ConfigDict(from_attributes=True)


class Request(BaseModel):
    """Base of all JSON requests: an unknown field is a mistake worth hearing about."""

    model_config = ConfigDict(extra="forbid")


def in_openapi(model: type[BaseModel]) -> dict[str, Any]:
    """Schema of a body that a route reads by itself; its enumerations are among the components as parameters' types."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


class PageOut(BaseModel, Generic[Item]):
    """A slice of a list; ``next_cursor`` is null on the last one."""

    items: list[Item]
    next_cursor: str | None


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


class ModelIn(Request):
    """A new model; everything but its name has a default."""

    name: ModelName
    network: str = "resnet32"
    image_size: Annotated[int, Field(ge=8, le=1024, description="Pixels, height and width.")] = 32
    channels: Annotated[Literal[1, 3], Field(description="1 (grey) or 3 (colour).")] = 3
    strategy: str = "lwf"
    recipe: dict[str, Any] = Field(default_factory=dict, description="Hyper-parameters, see /v1/strategies.")
    memory: MemoryIn | None = MemoryIn(per_class=20)
    retention: Retention = Retention.ALL


class ModelChange(Request):
    """New defaults for coming increments; a field that is left out stays as it is."""

    strategy: str | None = None
    recipe: dict[str, Any] | None = None
    memory: MemoryIn | None = None
    retention: Retention | None = None


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
    head: int | None
    current: int | None
    previous: int | None
    classes: list[str] = Field(description="Labels the head knows, in the order of its logits.")
    created_at: datetime


class StrategyOut(Answer):
    """A way to learn new classes without losing the old ones."""

    name: str
    title: str
    explanation: str
    source: str
    recipe_schema: dict[str, Any]


class RejectOut(Answer):
    """A file that was left out, and why."""

    file: str
    reason: str


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
    digest: str | None
    created_at: datetime


class ImageOut(Answer):
    """An image just stored."""

    id: str
    label: str
    filename: str
    digest: str


class ImagesOut(Answer):
    """The images of one request."""

    images: list[ImageOut]


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
    batch_id: str
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
    rejects: list[RejectOut]
    error: str | None
    attempts: list[AttemptOut]
    seconds: dict[str, float] = Field(description="Duration of each stage, once there is a version.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


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
    created_at: datetime


class VersionMetricsOut(BaseModel):
    """Every metric of a version under ``tag`` (task-agnostic) and ``taw`` (task-aware); see docs/metrics.md."""

    model: str
    version: int
    classes: list[str]
    tasks: list[list[str]]
    test_images: list[int | None]
    tag: dict[str, Any]
    taw: dict[str, Any]
    imbalance: dict[str, Any] | None


class ModelMetricsOut(BaseModel):
    """The accuracy matrix and every curve along a version's line of ancestors."""

    model: str
    version: int
    versions: list[int]
    tasks: list[list[str]]
    tag: dict[str, Any]
    taw: dict[str, Any]


class CurrentIn(Request):
    """The version to put into service."""

    version: Annotated[int, Field(ge=1)]


class CurrentOut(BaseModel):
    """The version in service and the one before."""

    model: str
    version: int | None
    previous: int | None


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


class HealthOut(BaseModel):
    """A probe's answer."""

    status: str
    checks: dict[str, str] = {}
