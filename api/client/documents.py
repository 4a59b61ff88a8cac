"""The service's JSON answers, as typed dictionaries: nothing the server adds is lost.

Written by `make types` from the OpenAPI document; change `api/schemas` instead.
"""

from typing import Any, Literal, TypedDict


class ClassCount(TypedDict):
    """Images of one class; test is 0 until the batch is ingested, unless it brought a split of its own."""

    label: str
    train: int
    test: int


class Reject(TypedDict):
    """A file that was left out, and why."""

    file: str
    reason: str


class Ignored(TypedDict):
    """Files that were left out because they are neither images nor rejects: how many, and some of their names."""

    reason: str
    count: int
    files: list[str]


class Batch(TypedDict):
    """What is in a batch."""

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
    increment_id: str | None
    created_at: str


class Class(TypedDict):
    """A class and its stored images; ``id`` is the label by which it is held, in the files of versions too."""

    label: str
    id: str
    task: int | None
    train: int
    test: int
    examples: list[str]


class Classes(TypedDict):
    """The classes of a model: those that its head knows in the order of the logits, then the others by name."""

    model: str
    classes: list[Class]


class Share(TypedDict):
    """A share of images, with its exact 95 % interval (Clopper and Pearson)."""

    hits: int
    share: float
    low: float
    high: float


class Pair(TypedDict):
    """Two versions on the same images: how many each has right, and the images on which exactly one is right."""

    images: int
    version: Share
    other: Share
    better: int
    worse: int
    p_value: float


class ClassPair(TypedDict):
    """Two versions on the images of a class, with ids of images that changed, at most 20 of each kind."""

    images: int
    version: Share
    other: Share
    better: int
    worse: int
    p_value: float
    label: str
    got_better: list[str]
    got_worse: list[str]


class Comparison(TypedDict):
    """A version beside another one, on the evaluation images of both."""

    model: str
    version: int
    other: int
    form: str
    recorded: bool
    sentence: str
    together: Pair | None
    task_aware: Pair | None
    new_classes: Share | None
    relabelled: int
    only_version: list[str]
    only_other: list[str]
    classes: list[ClassPair]


class Current(TypedDict):
    """The version in service and the one before; ``revision`` counts promotions, and is what the ETag names."""

    model: str
    version: int | None
    previous: int | None
    revision: int


class Erased(TypedDict):
    """How many images were erased."""

    erased: int


class Ranked(TypedDict):
    """One of the most probable classes."""

    label: str
    probability: float


class Evaluation(TypedDict):
    """What a version said of one evaluation image; ``filename`` is null where the image was erased since."""

    image_id: str
    filename: str | None
    label: str
    predicted: str
    correct: bool
    top: list[Ranked]


class Evaluations(TypedDict):
    """A page of evaluation images; ``recorded`` is false for versions of releases that kept metrics alone."""

    model: str
    version: int
    recorded: bool
    note: str | None
    images: int
    items: list[Evaluation]
    next_cursor: str | None


class ImagePrediction(TypedDict):
    """The current version's prediction for a stored image."""

    image: str
    label: str
    model: str
    version: int
    predictions: list[Ranked]


class Image(TypedDict):
    """An image just stored."""

    id: str
    label: str
    filename: str
    digest: str


class Images(TypedDict):
    """The images of one request."""

    images: list[Image]


class Merge(TypedDict):
    """Classes that became one."""

    labels: list[str]
    into: str


class Edit(TypedDict):
    """What an edit changes."""

    drop: list[str]
    merge: list[Merge]


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
    """One try at an increment; outcome is null while it runs."""

    attempt: int
    worker: str
    started_at: str
    finished_at: str | None
    outcome: str | None
    reason: str | None


class Increment(TypedDict):
    """An increment, from the queue to its end."""

    id: str
    model: str
    batch_id: str | None
    edit: Edit | None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    attempt: int
    strategy: str
    recipe: dict[str, Any]
    promote: Literal["auto", "manual"]
    known_classes: Literal["refuse", "rehearse"]
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


class Memory(TypedDict, total=False):
    """Exemplars kept for rehearsal: so many a class, or so many in all."""

    per_class: int | None
    total: int | None


class ModelMetrics(TypedDict):
    """The accuracy matrix and every curve along a version's line of ancestors."""

    model: str
    version: int
    versions: list[int]
    tasks: list[list[str]]
    tag: dict[str, Any]
    taw: dict[str, Any]


class Model(TypedDict):
    """A model and where its history stands."""

    name: str
    network: str
    image_size: int
    channels: int
    strategy: str
    recipe: dict[str, Any]
    memory: dict[str, int] | None
    retention: Literal["all", "exemplars", "none"]
    keep_predictions: Literal["none", "all"]
    head: int | None
    current: int | None
    previous: int | None
    notices: list[str]
    classes: list[str]
    created_at: str


class AuditEntry(TypedDict):
    """A change that somebody asked for; ``status`` is that of the answer, null where it was not noted.

    ``change`` says what was changed, null where nothing was or it is not on record: ``changed`` holds values before and
    after by field, ``made`` and ``deleted`` say what.
    """

    number: int
    created_at: str
    key_id: str | None
    key_name: str
    client: str
    action: str
    path: str
    status: int | None
    change: dict[str, Any] | None


class PredictionRecord(TypedDict):
    """What was answered, when, and by which version."""

    id: str
    model: str
    version: int
    predictions: list[list[Ranked]]
    digests: list[str] | None
    reference: str | None
    kept: list[int]
    created_at: str


class Promotion(TypedDict):
    """A version was put into service; ``key`` is null where an increment promoted its own version."""

    version: int
    previous: int | None
    revision: int
    key: str | None
    increment_id: str | None
    reason: str | None
    created_at: str | None


class Relabel(TypedDict):
    """An image was moved to another class, after versions had learned from it or had been measured on it."""

    image_id: str
    before: str
    after: str
    split: Literal["train", "test"] | None
    versions: list[int]
    key: str
    created_at: str


class StoredImage(TypedDict):
    """A stored image, without its file."""

    id: str
    batch_id: str
    label: str
    filename: str
    digest: str
    bytes: int
    split: Literal["train", "test"] | None


class Strategy(TypedDict):
    """A way to learn new classes without losing the old ones."""

    name: str
    title: str
    explanation: str
    source: str
    formula: str
    head: Literal["linear", "cosine"] | None
    needs_exemplars: bool
    recipe_schema: dict[str, Any]


class File(TypedDict):
    """A file of a version."""

    sha256: str
    bytes: int


class Summary(TypedDict):
    """The headline of a version's metrics; null where nothing was measured."""

    average_accuracy: float | None
    forgetting: float | None


class Version(TypedDict):
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
    files: dict[str, File]
    data_digest: str
    code_version: str
    seconds: dict[str, float]
    current: bool
    head: bool
    summary: dict[str, Summary]
    edit: Edit | None
    created_at: str


class Prediction(TypedDict):
    """Per image the most probable classes, best first; ``id`` is null when no record is kept."""

    id: str | None
    model: str
    version: int
    predictions: list[list[Ranked]]


class Relabelled(TypedDict):
    """An image that was moved to another class, and what that means for versions."""

    id: str
    batch_id: str
    label: str
    filename: str
    digest: str
    bytes: int
    split: Literal["train", "test"] | None
    former_label: str
    versions: list[int]
    note: str


class VersionMetrics(TypedDict):
    """Every metric of a version under ``tag`` (task-agnostic) and ``taw`` (task-aware); see docs/metrics.md."""

    model: str
    version: int
    classes: list[str]
    tasks: list[list[str]]
    test_images: list[int | None]
    tag: dict[str, Any]
    taw: dict[str, Any]
    imbalance: dict[str, Any] | None
