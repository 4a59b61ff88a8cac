"""The terms of the objective: a table that the objective, the formulas and the guide follow; torch-free.

A term is computed by the function of its name in `losses.computation`, and a strategy weighs it under that name. The
order of the rows is that of the parts of a loss, and of a formula.
"""

from dataclasses import dataclass

from losses.hyperparameters import HYPER_PARAMETERS

DISTILLATION_WEIGHT = "distillation_weight"  # the factor of the terms in brackets in formulas: λ·(J + …)


@dataclass(frozen=True, slots=True)
class Term:
    """One term: what it is called, what it depends on, and when it is there."""

    name: str
    symbol: str
    factor: str | None = None  # the hyper-parameter it is multiplied by, beside the strategy's weight
    hyper: tuple[str, ...] = ()  # every hyper-parameter it depends on, the factor first
    asks_for: tuple[str, ...] = ()  # optional arguments that it needs; a term with any needs an old task
    among_new: bool = False  # needs a new class

    def __post_init__(self) -> None:
        """Raise ValueError for a hyper-parameter that does not exist."""
        for name in (*self.hyper, *((self.factor,) if self.factor else ())):
            if name not in HYPER_PARAMETERS:
                raise ValueError(f"term {self.name!r}: no hyper-parameter {name!r}")

    @property
    def looks_back(self) -> bool:
        """Whether it needs an old task."""
        return bool(self.asks_for)


TERMS = (
    Term("classification", "CE", hyper=("label_smoothing",)),
    Term("binary_prediction", "P"),
    Term(
        "joint",
        "J",
        factor=DISTILLATION_WEIGHT,
        hyper=(DISTILLATION_WEIGHT, "temperature"),
        asks_for=("teacher_logits",),
    ),
    Term(
        "separated",
        "ΣKᵢ",
        factor=DISTILLATION_WEIGHT,
        hyper=(DISTILLATION_WEIGHT, "temperature", "task_reduction"),
        asks_for=("teacher_logits",),
    ),
    Term(
        "binary",
        "ΣBᵢ",
        factor=DISTILLATION_WEIGHT,
        hyper=(DISTILLATION_WEIGHT, "task_reduction"),
        asks_for=("teacher_logits",),
    ),
    Term(
        "less_forget",
        "F",
        factor=DISTILLATION_WEIGHT,
        hyper=(DISTILLATION_WEIGHT,),
        asks_for=("student_features", "teacher_features"),
    ),
    Term(
        "attention",
        "Att",
        factor="attention_weight",
        hyper=("attention_weight",),
        asks_for=("student_attention", "teacher_attention"),
    ),
    Term(
        "margin_ranking",
        "MR",
        factor="margin_weight",
        hyper=("margin_weight", "margin", "hardest_classes"),
        asks_for=("student_scale",),
        among_new=True,
    ),
)
