"""The loss of one minibatch for a student, with a teacher where the objective needs one."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from losses import Loss, Objective
from losses.strategies import LABELS
from trainer.networks import IncrementalNetwork, Observed
from trainer.networks.gradcam import attention_maps


@dataclass(frozen=True)
class DistillationStep:
    """A student, its teacher, and the objective of the student's training."""

    student: IncrementalNetwork
    teacher: IncrementalNetwork | None  # in evaluation mode and without gradients; None if nothing is distilled
    objective: Objective
    shown: tuple[int, ...]  # number of training images of each class, new classes last
    old_tasks: int  # tasks that the parent knows: all but the last, or all if no class is new

    @property
    def rehearses(self) -> bool:
        """Whether images of old classes are shown."""
        return any(self.shown[: sum(self.student.task_sizes[: self.old_tasks])])

    def loss(self, inputs: Tensor, targets: Tensor) -> Loss:
        """The objective of normalised images [batch, channels, size, size] with targets int64 [batch]."""
        looks = self.teacher is not None and self.objective.asks_for("student_attention")
        student = self.student.observe(inputs, stage=looks)
        teacher = self._taught(inputs, stage=looks)
        kept: dict[str, Tensor] = {}
        if teacher is not None:
            kept = {"student_features": student.features, "teacher_features": teacher.features}
        if teacher is not None and looks:
            likeliest = teacher.logits.argmax(dim=1)  # LOSSES, Att: the teacher's top class for both
            kept["student_attention"] = attention_maps(student, classes=likeliest)
            kept["teacher_attention"] = attention_maps(teacher, classes=likeliest)
        return self.objective(
            student_logits=student.logits,
            teacher_logits=teacher.logits if teacher is not None else None,
            targets=targets,
            task_sizes=self.student.task_sizes,
            shown=self.shown,
            student_scale=self.student.scale,
            old_tasks=self.old_tasks,
            **kept,
        )

    @torch.no_grad()
    def classification(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The classification term alone, of the student's logits as in serving: the validation loss (LOSSES)."""
        return replace(self.objective, weights=LABELS)(
            student_logits=self.student(inputs),
            teacher_logits=None,
            targets=targets,
            task_sizes=self.student.task_sizes,
            shown=self.shown,
            old_tasks=self.old_tasks,
        ).total

    def _taught(self, inputs: Tensor, *, stage: bool) -> Observed | None:
        if self.teacher is None:
            return None
        if stage:  # maps are gradients, which inference mode rules out
            with torch.no_grad():
                return self.teacher.observe(inputs, stage=True)
        with torch.inference_mode():
            taught = self.teacher.observe(inputs)
        return Observed(taught.logits.clone(), taught.features.clone())  # not inference tensors: autograd accepts them
