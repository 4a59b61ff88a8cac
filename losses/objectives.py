"""The objective of one increment: the formula of `losses.strategies` with a strategy's weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from losses.classification import binary_prediction, softmax_cross_entropy
from losses.distillation import (
    TASK_REDUCTIONS,
    TaskReduction,
    binary_distillation,
    joint_distillation,
    separated_distillation,
)
from losses.minibatch import Minibatch
from losses.representation import attention_distillation, less_forget, margin_ranking
from losses.shown import shown_classes
from losses.strategies import Weights, get
from losses.tasks import task_slices


@dataclass(frozen=True, slots=True)
class Loss:
    """What an objective gives: its weighted terms, scalars in nats, by name."""

    parts: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum of the parts: what to minimise."""
        return torch.stack(list(self.parts.values())).sum()


@dataclass(frozen=True, slots=True)
class Objective:
    """Weights and hyper-parameters of the formula; call it with what a minibatch gives."""

    weights: Weights
    adaptive: bool = False
    over_all_classes: bool = False
    label_smoothing: float = 0.0
    distillation_weight: float = 1.0  # λ, LwF §3
    temperature: float = 2.0  # LwF §3
    task_reduction: TaskReduction = "sum"  # as published
    attention_weight: float = 1.0  # γ, LwM §4, which gives no value
    margin_weight: float = 1.0  # LUCIR Eq. 9
    margin: float = 0.5  # LUCIR §4.1
    hardest_classes: int = 2  # K, LUCIR §4.1

    def __post_init__(self) -> None:
        """Refuse values the formula has no meaning for."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is at least 0 and below 1, got {self.label_smoothing}")
        for name in ("distillation_weight", "attention_weight", "margin_weight", "margin"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is finite and not negative, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is finite and positive, got {self.temperature}")
        if self.task_reduction not in TASK_REDUCTIONS:
            raise ValueError(f"task_reduction is one of {TASK_REDUCTIONS}, got {self.task_reduction!r}")
        if self.hardest_classes < 1:
            raise ValueError(f"hardest_classes is at least 1, got {self.hardest_classes}")

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

        ``student_logits`` [batch, classes] of all seen tasks; ``teacher_logits`` [batch, old classes] of the previous
        version, None at t = 0 and wherever nothing is distilled; ``targets`` int64 [batch], indices among all
        classes; ``task_sizes`` classes of every seen task, the new one last; ``shown`` training images of every class,
        0 for those that no minibatch holds: labels are learned among the others. Asked for from t = 1 on by
        the objectives that keep them: features [batch, dim], attention maps [batch, h, w] of the teacher's top class,
        neither normalised, and the scale η of a cosine head (scalar). ``old_tasks`` is how many tasks the teacher
        knows: all but the last (None), or all where no class is new. Raises ValueError for what is missing or has
        another shape.
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
        given.check(self.weights)
        with torch.autocast(student_logits.device.type, enabled=False):
            given = given.at_least_float32()
            parts = self._learned(given)
            if given.old_tasks:
                parts |= self._kept(given)
        return Loss(parts)

    def _learned(self, given: Minibatch) -> dict[str, Tensor]:
        """CE and w_P·P, over the classes shown."""
        student, targets = given.shown.logits(given.student_logits), given.shown.targets(given.targets)
        smoothing = self.label_smoothing
        parts = {
            "classification": softmax_cross_entropy(student_logits=student, targets=targets, label_smoothing=smoothing)
        }
        if weight := self.weights.prediction:
            parts["binary_prediction"] = weight * binary_prediction(student_logits=student, targets=targets)
        return parts

    def _kept(self, given: Minibatch) -> dict[str, Tensor]:
        """The terms that look back, those with a weight."""
        weights, parts = self.weights, {}
        old_logits = given.student_logits[:, : given.old_classes]
        scale = self.distillation_weight
        if self.adaptive and given.new_classes:
            scale *= math.sqrt(given.old_classes / given.new_classes)
        if weight := scale * weights.joint:
            parts["joint"] = weight * joint_distillation(
                student_logits=old_logits, teacher_logits=given.the("teacher_logits"), temperature=self.temperature
            )
        if weight := scale * weights.separated:
            parts["separated"] = weight * separated_distillation(
                student_logits=old_logits,
                teacher_logits=given.the("teacher_logits"),
                tasks=given.old_tasks,
                temperature=self.temperature,
                task_reduction=self.task_reduction,
            )
        if weight := scale * weights.binary:
            parts["binary"] = weight * binary_distillation(
                student_logits=old_logits,
                teacher_logits=given.the("teacher_logits"),
                tasks=given.old_tasks,
                task_reduction=self.task_reduction,
            )
        if weight := scale * weights.less_forget:
            parts["less_forget"] = weight * less_forget(
                student_features=given.the("student_features"), teacher_features=given.the("teacher_features")
            )
        if weight := self.attention_weight * weights.attention:
            parts["attention"] = weight * attention_distillation(
                student_attention=given.the("student_attention"), teacher_attention=given.the("teacher_attention")
            )
        if (weight := self.margin_weight * weights.margin) and given.new_classes:
            parts["margin_ranking"] = weight * margin_ranking(
                cosines=given.student_logits / given.the("student_scale"),
                targets=given.targets,
                old_classes=given.old_classes,
                margin=self.margin,
                hardest_classes=self.hardest_classes,
            )
        return parts


def objective(
    name: str,
    *,
    label_smoothing: float | None = None,
    distillation_weight: float | None = None,
    temperature: float | None = None,
    task_reduction: TaskReduction | None = None,
    attention_weight: float | None = None,
    margin_weight: float | None = None,
    margin: float | None = None,
    hardest_classes: int | None = None,
) -> Objective:
    """The objective of the strategy of that name, None being the strategy's own value; KeyError lists the known names.

    Hyper-parameters that a strategy has no use for (``Strategy.hyper``) have no effect.
    """
    strategy = get(name)
    hyper = {
        "label_smoothing": label_smoothing,
        "distillation_weight": distillation_weight,
        "temperature": temperature,
        "task_reduction": task_reduction,
        "attention_weight": attention_weight,
        "margin_weight": margin_weight,
        "margin": margin,
        "hardest_classes": hardest_classes,
    }
    chosen = {field: value for field, value in hyper.items() if value is not None}
    weights = strategy.weights  # a term that counts nothing asks for nothing: no teacher, no maps
    if chosen.get("distillation_weight") == 0:
        weights = replace(weights, joint=0.0, separated=0.0, binary=0.0, less_forget=0.0)
    if chosen.get("attention_weight") == 0:
        weights = replace(weights, attention=0.0)
    return Objective(
        weights=weights,
        adaptive=strategy.adaptive,
        over_all_classes=strategy.over_all_classes,
        **{**strategy.defaults, **chosen},  # type: ignore[arg-type]
    )
