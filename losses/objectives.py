"""The objective of one increment: the formula of `losses.strategies` with a strategy's weights."""

from collections.abc import Sequence
from dataclasses import dataclass

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
from losses.strategies import Weights, get
from losses.tasks import TaskSlices, task_slices


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
    """Weights and hyper-parameters of the formula; call it with a minibatch's logits."""

    weights: Weights
    label_smoothing: float = 0.0
    distillation_weight: float = 1.0  # λ, LwF §3
    temperature: float = 2.0  # LwF §4
    task_reduction: TaskReduction = "sum"  # as published

    def __post_init__(self) -> None:
        """Refuse values the formula has no meaning for."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is at least 0 and below 1, got {self.label_smoothing}")
        if self.distillation_weight < 0:
            raise ValueError(f"distillation_weight is not negative, got {self.distillation_weight}")
        if self.temperature <= 0:
            raise ValueError(f"temperature is positive, got {self.temperature}")
        if self.task_reduction not in TASK_REDUCTIONS:
            raise ValueError(f"task_reduction is one of {TASK_REDUCTIONS}, got {self.task_reduction!r}")

    def __call__(
        self,
        *,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        task_sizes: Sequence[int],
        rehearsal: bool,
    ) -> Loss:
        """The loss of a minibatch, in float32 also under autocast (float64 stays float64).

        ``student_logits`` [batch, classes] of all seen tasks; ``teacher_logits`` [batch, old classes] of the previous
        version, None at t = 0 and wherever nothing is distilled; ``targets`` int64 [batch], indices among all
        classes; ``task_sizes`` classes of every seen task, the new one last. With ``rehearsal`` (a minibatch may hold
        old classes) labels are learned over all classes, else among the new task's only.
        """
        slices = task_slices(task_sizes)
        _check_shapes(student_logits, teacher_logits, targets, slices, teacher_needed=self.weights.distils)
        student = _at_least_float32(student_logits)  # no term has an operation that autocast would take back down
        parts = self._learned(student, targets, slices, rehearsal=rehearsal)
        if len(slices) > 1 and self.weights.distils and teacher_logits is not None:
            teacher = _at_least_float32(teacher_logits.detach())
            parts |= self._kept(student[:, : teacher.shape[1]], teacher, slices[:-1])
        return Loss(parts)

    def _learned(self, student: Tensor, targets: Tensor, slices: TaskSlices, *, rehearsal: bool) -> dict[str, Tensor]:
        """CE and w_P·P, over all seen classes with rehearsal, over the new task's without."""
        first = 0 if rehearsal else slices[-1].start
        student, targets = student[:, first:], targets - first
        smoothing = self.label_smoothing
        parts = {
            "classification": softmax_cross_entropy(student_logits=student, targets=targets, label_smoothing=smoothing)
        }
        if self.weights.prediction:
            parts["prediction"] = self.weights.prediction * binary_prediction(student_logits=student, targets=targets)
        return parts

    def _kept(self, student: Tensor, teacher: Tensor, old_tasks: TaskSlices) -> dict[str, Tensor]:
        """λ·w_J·J, λ·w_K·Σ K_i and λ·w_B·Σ B_i, those with a weight."""
        weights, scale, parts = self.weights, self.distillation_weight, {}
        if weights.joint:
            parts["joint"] = (scale * weights.joint) * joint_distillation(
                student_logits=student, teacher_logits=teacher, temperature=self.temperature
            )
        if weights.separated:
            parts["separated"] = (scale * weights.separated) * separated_distillation(
                student_logits=student,
                teacher_logits=teacher,
                tasks=old_tasks,
                temperature=self.temperature,
                task_reduction=self.task_reduction,
            )
        if weights.binary:
            parts["binary"] = (scale * weights.binary) * binary_distillation(
                student_logits=student, teacher_logits=teacher, tasks=old_tasks, task_reduction=self.task_reduction
            )
        return parts


def objective(
    name: str,
    *,
    label_smoothing: float = 0.0,
    distillation_weight: float = 1.0,
    temperature: float = 2.0,
    task_reduction: TaskReduction = "sum",
) -> Objective:
    """The objective of the strategy of that name; raises KeyError that lists the known ones.

    Hyper-parameters that a strategy has no use for (``Strategy.hyper``) have no effect.
    """
    return Objective(
        weights=get(name).weights,
        label_smoothing=label_smoothing,
        distillation_weight=distillation_weight,
        temperature=temperature,
        task_reduction=task_reduction,
    )


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.to(torch.float32)


def _check_shapes(
    student_logits: Tensor, teacher_logits: Tensor | None, targets: Tensor, slices: TaskSlices, *, teacher_needed: bool
) -> None:
    """Say what was expected and what came; values stay unread, which would make a GPU wait."""
    classes, old_classes = slices[-1].stop, slices[-1].start
    if student_logits.ndim != 2 or student_logits.shape[1] != classes or not student_logits.is_floating_point():
        raise ValueError(
            f"student_logits: expected floating point [batch, {classes}], got "
            f"{student_logits.dtype} {list(student_logits.shape)}"
        )
    batch = student_logits.shape[0]
    if batch == 0:
        raise ValueError("the minibatch is empty")
    if targets.shape != (batch,) or targets.dtype != torch.int64:
        raise ValueError(f"targets: expected int64 [{batch}], got {targets.dtype} {list(targets.shape)}")
    if teacher_logits is None:
        if teacher_needed and old_classes:
            raise ValueError(f"teacher_logits: expected [{batch}, {old_classes}], got None")
    elif teacher_logits.shape != (batch, old_classes):
        raise ValueError(
            f"teacher_logits: expected [{batch}, {old_classes}]{'' if old_classes else ' or None'}, "
            f"got {list(teacher_logits.shape)}"
        )
