"""Terms that keep the outputs of the previous version: student and teacher logits are [batch, old classes]."""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.hyperparameters import TaskReduction
from losses.tasks import TaskSlices, segments


def joint_distillation(*, student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """J: −Σ softmax(teacher / T) · log softmax(student / T) over all classes given.

    In nats, batch mean. There is no factor T²: the formula's weights are calibrated without it. T = 2 is LwF's (§3).
    """
    return _soft_cross_entropy(
        log_targets=torch.log_softmax(_softened(teacher_logits, temperature), dim=1),
        log_probabilities=torch.log_softmax(_softened(student_logits, temperature), dim=1),
    )


def separated_distillation(
    *,
    student_logits: Tensor,
    teacher_logits: Tensor,
    tasks: TaskSlices,
    temperature: float = 2.0,
    task_reduction: TaskReduction = "sum",
) -> Tensor:
    """Σ K_i: J with a softmax of its own for each old task, in nats, batch mean.

    A constant added to all logits of a task does not change it.
    """
    old = segments(tasks, student_logits.device)
    summed = _soft_cross_entropy(
        log_targets=old.log_softmax(teacher_logits, temperature),
        log_probabilities=old.log_softmax(student_logits, temperature),
    )
    return _over_tasks(summed, len(tasks), task_reduction)


def binary_distillation(
    *, student_logits: Tensor, teacher_logits: Tensor, tasks: TaskSlices, task_reduction: TaskReduction = "sum"
) -> Tensor:
    """Σ B_i: binary cross-entropy of the student's sigmoids to the teacher's, mean over minibatch and a task's classes.

    In nats, without a temperature. Unlike a softmax it fixes the level of every logit. 1 − σ(z) is computed as σ(−z),
    which keeps its digits where σ is near 1.
    """
    present = torch.sigmoid(teacher_logits) * F.logsigmoid(student_logits)
    absent = torch.sigmoid(-teacher_logits) * F.logsigmoid(-student_logits)
    each_class = -(present + absent).mean(dim=0)
    return _over_tasks((each_class / segments(tasks, student_logits.device).sizes).sum(), len(tasks), task_reduction)


def _soft_cross_entropy(*, log_targets: Tensor, log_probabilities: Tensor) -> Tensor:
    return -(log_targets.exp() * log_probabilities).sum(dim=1).mean()


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """(Logits − largest logit) / T: the softmax is the same, and a high level of the logits costs no precision."""
    return (logits - logits.detach().amax(dim=1, keepdim=True)) / temperature


def _over_tasks(summed: Tensor, tasks: int, task_reduction: TaskReduction) -> Tensor:
    """The sum, as published, or the mean, whose weight does not grow with the number of tasks."""
    return summed if task_reduction == "sum" else summed / tasks
