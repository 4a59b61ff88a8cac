"""What versions said of each evaluation image, and two versions side by side."""

from pydantic import BaseModel

from api.schemas.predictions import RankedOut


class EvaluationOut(BaseModel):
    """What a version said of one evaluation image; ``filename`` is null where the image was erased since."""

    image_id: str
    filename: str | None
    label: str
    predicted: str
    correct: bool
    top: list[RankedOut]


class EvaluationsOut(BaseModel):
    """A page of evaluation images; ``recorded`` is false for versions of releases that kept metrics alone."""

    model: str
    version: int
    recorded: bool
    note: str | None
    images: int
    items: list[EvaluationOut]
    next_cursor: str | None


class ShareOut(BaseModel):
    """A share of images, with its exact 95 % interval (Clopper and Pearson)."""

    hits: int
    share: float
    low: float
    high: float


class PairOut(BaseModel):
    """Two versions on the same images: how many each has right, and the images on which exactly one is right."""

    images: int
    version: ShareOut
    other: ShareOut
    better: int
    worse: int
    p_value: float


class ClassPairOut(PairOut):
    """Two versions on the images of a class, with ids of images that changed, at most 20 of each kind."""

    label: str
    got_better: list[str]
    got_worse: list[str]


class ComparisonOut(BaseModel):
    """A version beside another one, on the evaluation images of both."""

    model: str
    version: int
    other: int
    form: str
    recorded: bool
    sentence: str
    together: PairOut | None
    task_aware: PairOut | None
    new_classes: ShareOut | None
    relabelled: int
    only_version: list[str]
    only_other: list[str]
    classes: list[ClassPairOut]
