"""What each strategy optimises, as data; torch-free, so that the API can list and check them.

The family of objectives is one formula (Neural Networks 193 (2026) 108017, doi 10.1016/j.neunet.2025.108017):
``L = CE + w_P·P + Λ·(w_J·J + w_K·Σ K_i + w_B·Σ B_i + w_F·F) + w_A·Att + w_M·MR``. Sums are over old tasks i. At t = 0
the formula is only ``CE + w_P·P``. The table `losses.terms` has its terms. A strategy is a row of weights. Λ is λ, but
for LUCIR λ·√(old classes / new classes).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from losses.hyperparameters import HYPER_PARAMETERS
from losses.terms import DISTILLATION_WEIGHT, TERMS, Term

HeadKind = Literal["linear", "cosine"]
LABELS = MappingProxyType({"classification": 1.0})  # what every strategy minimises


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to learn new classes without losing the old ones."""

    name: str
    title: str
    explanation: str
    source: str
    weights: Mapping[str, float] = field(default_factory=lambda: LABELS)  # by the names of terms
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of hyper-parameters, where they differ from the table's
    head: HeadKind | None = None  # kind of head it needs; None: whichever the network has
    adaptive: bool = False  # Λ grows with √(old classes / new classes)
    over_all_classes: bool = False  # labels are learned over all seen classes, shown or not
    old_heads_fixed: bool = False  # also with rehearsal; without it they are fixed for all that distil or fine-tune
    backbone_fixed: bool = False  # from the second task on
    every_image: bool = False  # learns a new network from the training images of all tasks
    without_exemplars: str = ""  # of a strategy made for rehearsal: the effect on its terms if no old image is shown

    def __post_init__(self) -> None:
        """Raise ValueError for a term or hyper-parameter that the tables do not have."""
        for kind, own, known in (
            ("term", self.weights, {term.name for term in TERMS}),
            ("hyper-parameter", self.defaults, set(HYPER_PARAMETERS)),
        ):
            for name in own:
                if name not in known:
                    raise ValueError(f"strategy {self.name!r}: no {kind} {name!r}")

    def head_beside(self, existing: HeadKind | None) -> HeadKind:
        """The kind of heads of a network: that of its ``existing`` ones, else the kind that this strategy needs."""
        return existing or self.head or "linear"

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms that have a weight here."""
        return tuple(term for term in TERMS if self.weights.get(term.name))

    def asks_for(self, argument: str) -> bool:
        """Whether an argument of the objective must be there from the second task on."""
        return any(argument in term.asks_for for term in self.terms)

    @property
    def hyper(self) -> tuple[str, ...]:
        """Hyper-parameters of the objective that have an effect here."""
        used = {name for term in self.terms for name in term.hyper}
        return tuple(name for name in HYPER_PARAMETERS if name in used)

    @property
    def formula(self) -> str:
        """What is minimised from the second task on, in the symbols of the tables."""
        parts: dict[str, list[str]] = {}  # by factor
        for term in self.terms:
            parts.setdefault(term.factor or "", []).append(_times(self.weights[term.name], term.symbol))
        sums = {factor: " + ".join(symbols) for factor, symbols in parts.items()}
        return " + ".join(self._weighed(factor, summed) for factor, summed in sums.items())

    def _weighed(self, factor: str, summed: str) -> str:
        if not factor:
            return summed
        symbol = HYPER_PARAMETERS[factor].symbol + ("ₜ" if self.adaptive and factor == DISTILLATION_WEIGHT else "")
        return f"{symbol}·({summed})" if " + " in summed else f"{symbol}·{summed}"


def _times(weight: float, symbol: str) -> str:
    return symbol if weight == 1 else f"{weight:g}·{symbol}"


@dataclass(frozen=True, slots=True)
class _Family:
    """A published method and the weights of its six forms."""

    name: str
    title: str
    explanation: str
    source: str
    forms: Mapping[str, Mapping[str, float]]
    defaults: Mapping[str, float]
    head: HeadKind
    rebalanced: bool = False  # LUCIR: adaptive weight, labels over all classes, old heads fixed
    without_exemplars: str = ""

    def strategy(self, form: str) -> Strategy:
        suffix, cure = _FORMS[form]
        return Strategy(
            name=self.name + suffix,
            title=f"{self.title}, {form}" if suffix else self.title,
            explanation=self.explanation + (f" {cure}" if suffix else ""),
            source=f"{self.source}; {_RETHINKING}" if suffix else self.source,
            weights=LABELS | self.forms[form],
            defaults=self.defaults,
            head=self.head,
            adaptive=self.rebalanced,
            over_all_classes=self.rebalanced,
            old_heads_fixed=self.rebalanced,
            without_exemplars=self.without_exemplars,
        )


_RETHINKING = "Rethinking softmax in incremental learning, Neural Networks 193 (2026) 108017"
_FORMS = {  # suffix, and what the form cures
    "plain": ("", ""),
    "separated": (
        "-s",
        "Separated: each old task has a softmax of its own, so that the level of a whole task cannot distort "
        "what is distilled.",
    ),
    "separated, regularised": (
        "-sr",
        "Separated and regularised: a softmax for each old task, beside the plain method's own term.",
    ),
    "binary distillation": (
        "-br",
        "Binary distillation: beside the plain method, the teacher's sigmoids are kept, which pins the level of "
        "every logit.",
    ),
    "binary distillation and prediction": (
        "-br2",
        "Binary distillation and prediction: the teacher's sigmoids are kept and the labels are learned by "
        "sigmoids too.",
    ),
    "binary and separated": (
        "-bsr",
        "Binary and separated: a softmax for each old task, and the teacher's sigmoids to pin the levels.",
    ),
}
# Rows of LOSSES: J, ΣK, ΣB, P.
_SOFTMAX_FORMS = {
    "plain": (1.0, 0.0, 0.0, 0.0),
    "separated": (0.0, 1.0, 0.0, 0.0),
    "separated, regularised": (0.5, 1.0, 0.0, 0.0),
    "binary distillation": (1.0, 0.0, 1.0, 0.0),
    "binary distillation and prediction": (1.0, 0.0, 1.0, 1.0),
    "binary and separated": (1.0, 1.0, 0.5, 0.0),
}
_GAMMA = 0.1  # the published factor of LUCIR-SR's separated term
# F, ΣK, ΣB, P; the separated form has ΣK in the place of F.
_LUCIR_FORMS = {
    "plain": (1.0, 0.0, 0.0, 0.0),
    "separated": (0.0, _GAMMA, 0.0, 0.0),
    "separated, regularised": (1.0, _GAMMA, 0.0, 0.0),
    "binary distillation": (1.0, 0.0, 1.0, 0.0),
    "binary distillation and prediction": (1.0, 0.0, 1.0, 1.0),
    "binary and separated": (1.0, _GAMMA, 0.5, 0.0),
}

_FAMILIES = (
    _Family(
        name="lwf",
        title="Learning without forgetting",
        explanation="Beside the cross-entropy of the new classes, the softened outputs of the previous version for "
        "the old classes are kept (knowledge distillation).",
        source="Li and Hoiem, Learning without forgetting, arXiv:1606.09282",
        forms={
            form: {"joint": j, "separated": k, "binary": b, "binary_prediction": p}
            for form, (j, k, b, p) in _SOFTMAX_FORMS.items()
        },
        defaults={"distillation_weight": 1.0, "temperature": 2.0},  # §3
        head="linear",
    ),
    _Family(
        name="lwm",
        title="Learning without memorizing",
        explanation="Learning without forgetting that also keeps where the network looks: the Grad-CAM map of the "
        "class the previous version holds for likeliest is distilled.",
        source="Dhar et al., Learning without memorizing, arXiv:1811.08051",
        forms={
            form: {"joint": j, "separated": k, "binary": b, "binary_prediction": p, "attention": 1.0}
            for form, (j, k, b, p) in _SOFTMAX_FORMS.items()
        },
        # β and γ of §4, which gives them no values; T is LwF's.
        defaults={"distillation_weight": 1.0, "temperature": 2.0, "attention_weight": 1.0},
        head="linear",
    ),
    _Family(
        name="lucir",
        title="Learning a unified classifier via rebalancing",
        explanation="Cosine classifier: the features keep their direction (less-forget), and old images stay a margin "
        "away from new classes. Made for rehearsal, without which the margin has nothing to act on.",
        source="Hou et al., Learning a unified classifier incrementally via rebalancing, CVPR 2019",
        forms={
            form: {"less_forget": f, "separated": k, "binary": b, "binary_prediction": p, "margin_ranking": 1.0}
            for form, (f, k, b, p) in _LUCIR_FORMS.items()
        },
        defaults={"distillation_weight": 5.0, "temperature": 1.0, "margin_weight": 1.0},  # λ_base: §4.1; 1: Eq. 9
        head="cosine",
        rebalanced=True,
        without_exemplars="its margin ranking has nothing to act on and its cross-entropy turns the features away from "
        "classes of which it sees nothing",
    ),
)
_BASELINES = (
    Strategy(
        name="finetune",
        title="Fine-tuning",
        explanation="Learns the new classes by cross-entropy alone and does nothing to keep the old ones: "
        "the lower bound every other strategy is measured against.",
        source="baseline",
    ),
    Strategy(
        name="freeze",
        title="Frozen features",
        explanation="After the first task only heads are trained, on features that stay as they are: without "
        "rehearsal it forgets nothing within a task, and learns as well as the first task's features allow.",
        source="baseline (feature extraction, Li and Hoiem, arXiv:1606.09282)",
        backbone_fixed=True,
    ),
    Strategy(
        name="joint",
        title="Joint training",
        explanation="Trains a new network on all images of all tasks, as if their classes had come at once: the upper "
        "bound, and the dearest. Needs every old training image (retention all).",
        source="baseline (joint training, Li and Hoiem, arXiv:1606.09282)",
        every_image=True,
    ),
)
STRATEGIES = (*_BASELINES, *(family.strategy(form) for family in _FAMILIES for form in _FORMS))

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
