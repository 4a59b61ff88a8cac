"""The service's JSON answers as the client sees them: typed dictionaries, so that nothing the server adds is lost."""

from typing import Any, Literal, TypedDict


class Memory(TypedDict, total=False):
    """Exemplars kept for rehearsal; exactly one of the two."""

    per_class: int
    total: int


class Model(TypedDict):
    """A named classifier; `head`, `current` and `previous` are version numbers."""

    name: str
    network: str
    image_size: int
    channels: int
    strategy: str
    recipe: dict[str, Any]
    memory: Memory | None
    retention: str
    head: int | None
    current: int | None
    previous: int | None
    notices: list[str]
    classes: list[str]
    created_at: str


class AuditEntry(TypedDict):
    """A change that somebody asked for; `status` is that of the answer, null where it was not noted."""

    number: int
    created_at: str
    key_id: str | None
    key_name: str
    client: str
    action: str
    path: str
    status: int | None


class Strategy(TypedDict):
    """What an increment can optimise, with the JSON schema of its recipe."""

    name: str
    title: str
    explanation: str
    source: str
    formula: str
    head: Literal["linear", "cosine"] | None
    needs_exemplars: bool
    recipe_schema: dict[str, Any]


class ClassCount(TypedDict):
    """Images of one class in a batch."""

    label: str
    train: int
    test: int


class Reject(TypedDict):
    """A file that was left out, and why."""

    file: str
    reason: str


class Ignored(TypedDict):
    """Files that were left out as no images; the first few by name."""

    reason: str
    count: int
    files: list[str]


class Batch(TypedDict):
    """Uploaded labelled images."""

    id: str
    model: str
    status: Literal["open", "closed", "ingested"]
    classes: list[ClassCount]
    images: int
    rejects: list[Reject]
    reject_count: int
    ignored: list[Ignored]
    notes: list[str]
    digest: str | None
    created_at: str


class Image(TypedDict):
    """An image just stored in a batch."""

    id: str
    label: str
    filename: str
    digest: str


class Progress(TypedDict):
    """Where a running increment stands; what a stage does not count is null."""

    stage: str
    epoch: int | None
    epochs: int | None
    step: int | None
    steps: int | None
    loss: float | None
    images_per_second: float | None
    eta_seconds: float | None


class Attempt(TypedDict):
    """One try at an increment."""

    attempt: int
    worker: str
    started_at: str
    finished_at: str | None
    outcome: str | None
    reason: str | None


class Increment(TypedDict):
    """The job that turns a batch into a version."""

    id: str
    model: str
    batch_id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    attempt: int
    strategy: str
    recipe: dict[str, Any]
    promote: str
    known_classes: str
    parent: int | None
    version: int | None
    promoted: bool | None
    note: str | None
    progress: Progress | None
    notices: list[str]
    rejects: list[Reject]
    reject_count: int
    error: str | None
    attempts: list[Attempt]
    seconds: dict[str, float]
    created_at: str
    started_at: str | None
    finished_at: str | None


class VersionFile(TypedDict):
    """A file of a version."""

    sha256: str
    bytes: int


class Summary(TypedDict):
    """The headline of a version's metrics, 0 … 1; null where nothing was measured."""

    average_accuracy: float | None
    forgetting: float | None


class Summaries(TypedDict):
    """Task-agnostic and task-aware."""

    tag: Summary
    taw: Summary


class Version(TypedDict):
    """An immutable trained network with its lineage; `seconds` by stage."""

    model: str
    version: int
    parent: int | None
    task: int
    classes: list[str]
    tasks: list[list[str]]
    strategy: str
    recipe: dict[str, Any]
    increment_id: str
    files: dict[str, VersionFile]
    data_digest: str
    code_version: str
    seconds: dict[str, float]
    current: bool
    head: bool
    summary: Summaries
    created_at: str


class VersionMetrics(TypedDict):
    """Every metric of one version."""

    model: str
    version: int
    classes: list[str]
    tasks: list[list[str]]
    test_images: list[int | None]
    tag: dict[str, Any]
    taw: dict[str, Any]
    imbalance: dict[str, Any] | None


class Curves(TypedDict):
    """The accuracy matrix, a row for each version, and a value per version of each curve; null where not measured."""

    matrix: list[list[float | None]]
    average_accuracy: list[float | None]
    average_incremental_accuracy: list[float | None]
    forgetting: list[float | None]
    backward_transfer: list[float | None]


class ModelMetrics(TypedDict):
    """The curves along a version's line of ancestors."""

    model: str
    version: int
    versions: list[int]
    tasks: list[list[str]]
    tag: Curves
    taw: Curves


class Current(TypedDict):
    """The version in service and the one before."""

    model: str
    version: int | None
    previous: int | None
    revision: int


class Ranked(TypedDict):
    """One of the most probable classes."""

    label: str
    probability: float


class Prediction(TypedDict):
    """Per image the most probable classes, best first; `id` is null when no record is kept."""

    id: str | None
    model: str
    version: int
    predictions: list[list[Ranked]]


class PredictionRecord(TypedDict):
    """What was answered, when, and by which version."""

    id: str
    model: str
    version: int
    predictions: list[list[Ranked]]
    created_at: str


class ImagePrediction(TypedDict):
    """The current version's prediction for a stored image."""

    image: str
    label: str
    model: str
    version: int
    predictions: list[Ranked]
