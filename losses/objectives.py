"""The objective of one increment: the formula of `losses.strategies` with a strategy's weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from losses import computation
from losses.hyperparameters import HyperParameters
from losses.minibatch import Minibatch
from losses.shown import shown_classes
from losses.strategies import get
from losses.tasks import task_slices
from losses.terms import DISTILLATION_WEIGHT, TERMS, Term


@dataclass(frozen=True, slots=True)
class Loss:
    """The weighted terms of an objective, scalars in nats, by name."""

    parts: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum of the parts: what to minimise."""
        return torch.stack(list(self.parts.values())).sum()


@dataclass(frozen=True)
class Objective:
    """Weights and hyper-parameters of the formula; call it with the outputs for a minibatch."""

    weights: Mapping[str, float]  # by the names of terms
    hyper: HyperParameters = field(default_factory=HyperParameters)
    adaptive: bool = False
    over_all_classes: bool = False

    @cached_property
    def terms(self) -> tuple[tuple[Term, float], ...]:
        """Terms with their weights; a term of weight or factor 0 is left out, so it needs no arguments."""
        weighted = ((term, self.weights.get(term.name, 0.0)) for term in TERMS)
        return tuple((term, weight) for term, weight in weighted if weight and self._factor(term))

    def asks_for(self, argument: str) -> bool:
        """Whether an argument must be there from the second task on."""
        return argument in self.asked

    @cached_property
    def asked(self) -> frozenset[str]:
        """Optional arguments that this objective needs from the second task on."""
        return frozenset(argument for term, _ in self.terms for argument in term.asks_for)

    @property
    def distils(self) -> bool:
        """Whether a teacher is needed from the second task on."""
        return any(argument.startswith("teacher_") for argument in self.asked)

    def __call__(
        self,
        *,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        task_sizes: Sequence[int],
        shown: Sequence[int] | Tensor,
        student_features: Tensor | None = None,
        teacher_features: Tensor | None = None,
        student_attention: Tensor | None = None,
        teacher_attention: Tensor | None = None,
        student_scale: Tensor | None = None,
        old_tasks: int | None = None,
    ) -> Loss:
        """The loss of a minibatch, in float32 also under autocast (float64 stays float64).

        ``student_logits`` [batch, classes]: of all seen tasks. ``teacher_logits`` [batch, old classes]: of the previous
        version; None at t = 0 and if nothing is distilled. ``targets`` int64 [batch]: indices among all classes.
        ``task_sizes``: number of classes of every seen task, the new one last. ``shown``: number of training images of
        every class; labels are learned among the classes for which it is not 0. From t = 1 on some objectives need
        features [batch, dim] and attention maps [batch, h, w] of the teacher's top class, neither normalised, and the
        scale η of a cosine head (scalar). ``old_tasks``: number of tasks that the teacher knows; all but the last
        (None), or all if no class is new. Raises ValueError for an argument that is missing or has another shape.
        """
        tasks = task_slices(task_sizes)
        if old_tasks is not None and old_tasks not in {len(tasks) - 1, len(tasks)}:
            raise ValueError(f"old_tasks: expected {len(tasks) - 1} or {len(tasks)}, got {old_tasks}")
        everything = [1] * tasks[-1].stop if self.over_all_classes else shown
        given = Minibatch(
            student_logits=student_logits,
            teacher_logits=teacher_logits,
            targets=targets,
            tasks=tasks,
            shown=shown_classes(everything, classes=tasks[-1].stop, device=targets.device),
            old_tasks=tasks[: len(tasks) - 1 if old_tasks is None else old_tasks],
            student_features=student_features,
            teacher_features=teacher_features,
            student_attention=student_attention,
            teacher_attention=teacher_attention,
            student_scale=student_scale,
        )
        given.check(self.asked)
        with torch.autocast(student_logits.device.type, enabled=False):
            return Loss(self._parts(given.at_least_float32()))

    def _parts(self, given: Minibatch) -> dict[str, Tensor]:
        """The weighted terms, without those that need an old task or a new class where there is none."""
        parts = {}
        for term, weight in self.terms:
            if (term.looks_back and not given.old_tasks) or (term.among_new and not given.new_classes):
                continue
            factor = self._factor(term)
            if self.adaptive and term.factor == DISTILLATION_WEIGHT and given.new_classes:
                factor *= math.sqrt(given.old_classes / given.new_classes)
            parts[term.name] = factor * weight * getattr(computation, term.name)(given, self.hyper)
        return parts

    def _factor(self, term: Term) -> float:
        return float(getattr(self.hyper, term.factor)) if term.factor is not None else 1.0


def objective(name: str, **hyper: Any) -> Objective:
    """The objective of the strategy of that name; raises KeyError that lists the known names.

    ``hyper`` are values of `losses.hyperparameters`; None stands for the strategy's own value. Those that are not in
    ``Strategy.hyper`` have no effect. Raises ValueError for a value out of range.
    """
    strategy = get(name)
    chosen = {name: value for name, value in hyper.items() if value is not None}
    return Objective(
        weights=strategy.weights,
        hyper=HyperParameters(**{**strategy.defaults, **chosen}),
        adaptive=strategy.adaptive,
        over_all_classes=strategy.over_all_classes,
    )
