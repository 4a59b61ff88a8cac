"""Terms that keep what the previous version knows: student and teacher logits are [batch, old classes]."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.tasks import TaskSlices

TaskReduction = Literal["sum", "mean"]
TASK_REDUCTIONS: tuple[str, ...] = get_args(TaskReduction)


def joint_distillation(*, student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """J, or K_i of one task: −Σ softmax(teacher / T) · log softmax(student / T) over the classes given.

    In nats, batch mean, without a factor T²: the weights of the formula are calibrated so. T = 2 is LwF's (§4).
    """
    soft_targets = torch.softmax(teacher_logits / temperature, dim=1)
    return -(soft_targets * torch.log_softmax(student_logits / temperature, dim=1)).sum(dim=1).mean()


def separated_distillation(
    *,
    student_logits: Tensor,
    teacher_logits: Tensor,
    tasks: TaskSlices,
    temperature: float = 2.0,
    task_reduction: TaskReduction = "sum",
) -> Tensor:
    """Σ K_i: a softmax of its own for each old task; indifferent to a level shift of a whole task."""
    terms = [
        joint_distillation(
            student_logits=student_logits[:, task], teacher_logits=teacher_logits[:, task], temperature=temperature
        )
        for task in tasks
    ]
    return _over_tasks(terms, task_reduction)


def binary_distillation(
    *, student_logits: Tensor, teacher_logits: Tensor, tasks: TaskSlices, task_reduction: TaskReduction = "sum"
) -> Tensor:
    """Σ B_i: binary cross-entropy of the student's sigmoids to the teacher's, mean over minibatch and classes.

    No temperature; pins the level of every logit.
    """
    terms = [
        F.binary_cross_entropy_with_logits(student_logits[:, task], torch.sigmoid(teacher_logits[:, task]))
        for task in tasks
    ]
    return _over_tasks(terms, task_reduction)


def _over_tasks(terms: list[Tensor], task_reduction: TaskReduction) -> Tensor:
    """The sum, as published, or the mean, whose weight does not grow with the number of tasks."""
    stacked = torch.stack(terms)
    return stacked.sum() if task_reduction == "sum" else stacked.mean()
