"""What each strategy optimises, as data; torch-free, so that the API can list and check them.

The objectives of the family are one formula (Neural Networks 193 (2026) 108017), at t ≥ 1
``L = CE + w_P·P + λ·(w_J·J + w_K·Σ K_i + w_B·Σ B_i)`` over old tasks i, at t = 0 only ``CE + w_P·P``;
a strategy is a row of weights.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the formula's terms."""

    joint: float = 0.0  # w_J: distillation over all old classes together
    separated: float = 0.0  # w_K: distillation within each old task
    binary: float = 0.0  # w_B: binary cross-entropy to the teacher's sigmoids, each old task
    prediction: float = 0.0  # w_P: binary cross-entropy to the labels

    @property
    def distils(self) -> bool:
        """Whether a teacher is needed from the second task on."""
        return any((self.joint, self.separated, self.binary))


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to learn new classes without losing the old ones."""

    name: str
    title: str
    explanation: str
    source: str
    weights: Weights
    hyper: tuple[str, ...]  # hyper-parameters of the objective that have an effect here


_DISTILLATION_HYPER = ("label_smoothing", "distillation_weight", "temperature", "task_reduction")

STRATEGIES = (
    Strategy(
        name="finetune",
        title="Fine-tuning",
        explanation=(
            "Learns the new classes by cross-entropy alone and does nothing to keep the old ones: "
            "the lower bound every other strategy is measured against."
        ),
        source="baseline",
        weights=Weights(),
        hyper=("label_smoothing",),
    ),
    Strategy(
        name="lwf",
        title="Learning without forgetting",
        explanation=(
            "Beside the cross-entropy of the new classes, the softened outputs of the previous version "
            "for all old classes together are kept (knowledge distillation)."
        ),
        source="Li and Hoiem, Learning without Forgetting, arXiv:1606.09282",
        weights=Weights(joint=1.0),
        hyper=_DISTILLATION_HYPER,
    ),
)

_BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


def names() -> tuple[str, ...]:
    """Every strategy's name."""
    return tuple(_BY_NAME)


def get(name: str) -> Strategy:
    """The strategy of that name; raises KeyError that lists the known ones."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise KeyError(f"no strategy {name!r}; known are {', '.join(names())}") from None
