"""The outputs of a network and its teacher for a minibatch, and the check that an objective can use them."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from losses.shown import Shown
from losses.tasks import TaskSlices


@dataclass(frozen=True)
class Minibatch:
    """The arguments of an objective; see `losses.objectives.Objective.__call__`."""

    student_logits: Tensor
    teacher_logits: Tensor | None
    targets: Tensor
    tasks: TaskSlices
    shown: Shown
    old_tasks: TaskSlices
    student_features: Tensor | None = None
    teacher_features: Tensor | None = None
    student_attention: Tensor | None = None
    teacher_attention: Tensor | None = None
    student_scale: Tensor | None = None

    @property
    def old_classes(self) -> int:
        """Classes of all old tasks."""
        stop: int = self.old_tasks[-1].stop if self.old_tasks else 0
        return stop

    @cached_property
    def shown_logits(self) -> Tensor:
        """The student's logits of the classes shown, [batch, shown]."""
        return self.shown.logits(self.student_logits)

    @cached_property
    def old_logits(self) -> Tensor:
        """The student's logits of all old tasks, [batch, old classes]."""
        return self.student_logits[:, : self.old_classes]

    @property
    def new_classes(self) -> int:
        """Classes of the new task, 0 without one."""
        return self.student_logits.shape[1] - self.old_classes

    def the(self, name: str) -> Tensor:
        """An optional argument that this objective needs; raises ValueError with its name if it is None."""
        tensor = getattr(self, name)
        if tensor is None:
            raise ValueError(f"{name}: this objective needs it from the second task on, got None")
        return tensor  # type: ignore[no-any-return]

    def at_least_float32(self) -> "Minibatch":
        """A copy in float32, since half precisions cannot hold a loss; float64 is kept. The teacher is detached."""
        changed: dict[str, Tensor] = {}
        for name in ("student_logits", "student_features", "student_attention", "student_scale"):
            if (tensor := getattr(self, name)) is not None:
                changed[name] = _at_least_float32(tensor)
        for name in ("teacher_logits", "teacher_features", "teacher_attention"):
            if (tensor := getattr(self, name)) is not None:
                changed[name] = _at_least_float32(tensor.detach())
        return replace(self, **changed)  # type: ignore[arg-type]

    def check(self, asked: Collection[str]) -> None:
        """Raise ValueError for a missing argument or a wrong shape, with what was expected and what came.

        ``asked`` names the optional arguments that are needed once there is an old task. Values are not read, since
        that would synchronise with the GPU.
        """
        classes, batch = self.tasks[-1].stop, self.student_logits.shape[0]
        if (
            self.student_logits.ndim != 2
            or self.student_logits.shape[1] != classes
            or not self.student_logits.is_floating_point()
        ):
            raise ValueError(
                f"student_logits: expected floating point [batch, {classes}], got "
                f"{self.student_logits.dtype} {list(self.student_logits.shape)}"
            )
        if batch == 0:
            raise ValueError("the minibatch is empty")
        if self.targets.shape != (batch,) or self.targets.dtype != torch.int64:
            raise ValueError(f"targets: expected int64 [{batch}], got {self.targets.dtype} {list(self.targets.shape)}")
        if self.teacher_logits is not None and self.teacher_logits.shape != (batch, self.old_classes):
            raise ValueError(
                f"teacher_logits: expected [{batch}, {self.old_classes}]{'' if self.old_tasks else ' or None'}, "
                f"got {list(self.teacher_logits.shape)}"
            )
        if self.old_tasks:
            self._check_kept(asked, batch)

    def _check_kept(self, asked: Collection[str], batch: int) -> None:
        if "teacher_logits" in asked:
            self.the("teacher_logits")
        for kind, dimensions, shape in (("features", 2, "[batch, dim]"), ("attention", 3, "[batch, h, w]")):
            if f"student_{kind}" not in asked:
                continue
            student, teacher = self.the(f"student_{kind}"), self.the(f"teacher_{kind}")
            if student.ndim != dimensions or student.shape[0] != batch:
                raise ValueError(f"student_{kind}: expected {shape} with batch = {batch}, got {list(student.shape)}")
            if teacher.shape != student.shape:
                raise ValueError(f"teacher_{kind}: expected {list(student.shape)}, got {list(teacher.shape)}")
        if "student_scale" in asked and self.the("student_scale").shape not in {(), (1,)}:
            raise ValueError(f"student_scale: expected a scalar, got {list(self.the('student_scale').shape)}")


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
