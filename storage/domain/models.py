"""A named classifier with its defaults."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from storage.domain.names import Names
from storage.domain.values import Json


class Retention(StrEnum):
    """What stays of a batch's images once its version is published (DESIGN, Evaluation images)."""

    ALL = "all"
    EXEMPLARS = "exemplars"
    NONE = "none"


class KeepPredictions(StrEnum):
    """Of which predictions the images are kept beside the record."""

    NONE = "none"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Memory:
    """How many exemplars a version keeps: so many a class, or so many in all; exactly one of the two is set."""

    per_class: int | None = None
    total: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if both or neither are set."""
        if (self.per_class is None) == (self.total is None):
            raise ValueError(f"memory needs exactly one of per_class and total, got {self!r}")

    def share(self, classes: int) -> int:
        """Exemplars of one class when the version knows ``classes`` of them."""
        return self.per_class if self.per_class is not None else (self.total or 0) // classes


@dataclass(frozen=True, slots=True)
class Model:
    """A named classifier with its own history of versions."""

    id: str
    name: str
    network: str
    image_size: int  # pixels, height and width
    channels: int  # 1 or 3
    strategy: str  # default of its increments
    recipe: Json  # default hyper-parameters; the increment's own go on top
    memory: Memory | None  # None: no rehearsal
    retention: Retention
    keep_predictions: KeepPredictions
    created_at: datetime
    head: int | None  # version the next increment starts from
    current: int | None  # version in service
    previous: int | None  # version in service before
    current_revision: int  # counts promotions: the ETag of `current`
    last_version: int  # highest number given so far; numbers are never given twice
    names: Names = field(default_factory=Names)  # of its classes


@dataclass(frozen=True, slots=True)
class PromotionRecord:
    """A version was put into service: by whom, or by which increment, when and why."""

    revision: int  # the model's count of promotions, this one included
    version: int
    previous: int | None  # what was in service before; None: nothing
    key_id: str | None
    key_name: str | None  # None: by an increment, or by a release that kept no record
    increment_id: str | None  # the increment that made the version and promoted it
    reason: str | None
    created_at: datetime | None  # None: by a release that kept no record
