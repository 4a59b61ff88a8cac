"""The objective's hyper-parameters: default, range and meaning of each. Recipes and the guide take them from here."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

TaskReduction = Literal["sum", "mean"]

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # names of `operator` in words


@dataclass(frozen=True, slots=True)
class HyperParameter:
    """The description of one hyper-parameter, without its value."""

    name: str
    type: Any
    default: Any  # a value of the type
    description: str
    symbol: str  # in formulas; empty where it has none
    bounds: Mapping[str, float]  # by their names in BOUNDS

    @property
    def choices(self) -> tuple[str, ...]:
        """Permitted values of a hyper-parameter that is not a number; empty for numbers."""
        return get_args(self.type)

    @property
    def permitted(self) -> str:
        """The values in words, like ``a number at least 0 and below 1``."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return f"{'a whole number' if self.type is int else 'a number'} {bounds_in_words(self.bounds)}"

    def check(self, value: Any) -> None:
        """Raise ValueError for a value that is not permitted."""
        if self.choices:
            permitted = value in self.choices
        else:  # NaN is within no bounds
            permitted = all(getattr(operator, bound)(value, limit) for bound, limit in self.bounds.items())
        if not permitted:
            raise ValueError(f"{self.name} is {self.permitted}, got {value!r}")


def bounds_in_words(bounds: Mapping[str, float]) -> str:
    """Bounds in words, like ``above 0 and at most 1,000``."""
    return " and ".join(f"{words} {bounds[bound]:,}" for bound, words in BOUNDS.items() if bound in bounds)


def _said(description: str, *, symbol: str = "", **bounds: float) -> dict[str, Any]:
    """Metadata of a field: the parts of `HyperParameter` other than name, type and default."""
    return {"description": description, "symbol": symbol, "bounds": bounds}


@dataclass(frozen=True, slots=True)
class HyperParameters:
    """A value of each hyper-parameter; the fields describe them. Raises ValueError for a value out of range."""

    label_smoothing: float = field(
        default=0.0,
        metadata=_said(
            "Share of a label spread over all classes. 0: as published; 0.1 is usual elsewhere "
            "(Szegedy et al., arXiv:1512.00567 §7).",
            ge=0,
            lt=1,
        ),
    )
    distillation_weight: float = field(
        default=1.0,
        metadata=_said(
            "λ, of all distillation terms. 1: LwF §3; 5 for LUCIR (λ_base, §4.1).", symbol="λ", ge=0, le=1000
        ),
    )
    temperature: float = field(
        default=2.0,
        metadata=_said("T, softens what is distilled. 2: LwF §3; 1 for LUCIR (LOSSES).", symbol="T", gt=0, le=100),
    )
    task_reduction: TaskReduction = field(
        default="sum",
        metadata=_said("Per-task distillation terms added up over the old tasks (as published), or averaged."),
    )
    attention_weight: float = field(
        default=1.0, metadata=_said("γ, of the attention term. 1: as published (LOSSES).", symbol="γ", ge=0, le=1000)
    )
    margin_weight: float = field(
        default=1.0, metadata=_said("Of margin ranking. 1: LUCIR §4.1.", symbol="λₘ", ge=0, le=1000)
    )
    margin: float = field(
        default=0.5, metadata=_said("By how much an old class's cosine is to lead. 0.5: LUCIR §4.1.", ge=0, le=2)
    )
    hardest_classes: int = field(
        default=2, metadata=_said("New classes an old image is held away from. 2: LUCIR §4.1.", ge=1, le=1000)
    )

    def __post_init__(self) -> None:
        """Check every value."""
        for name, parameter in HYPER_PARAMETERS.items():
            parameter.check(getattr(self, name))


HYPER_PARAMETERS: Mapping[str, HyperParameter] = MappingProxyType(
    {
        item.name: HyperParameter(name=item.name, type=item.type, default=item.default, **item.metadata)
        for item in fields(HyperParameters)
    }
)
