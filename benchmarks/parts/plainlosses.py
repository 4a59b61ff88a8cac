"""The objectives of LwF and LwM as one writes them without `losses`: task by task, with what torch has.

Without rehearsal: labels are learned among the new task's classes. The formula and its table of weights are LOSSES'.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# J, ΣK, ΣB and P, by what follows the family's name
FORMS = {
    "": (1.0, 0.0, 0.0, 0.0),
    "s": (0.0, 1.0, 0.0, 0.0),
    "sr": (0.5, 1.0, 0.0, 0.0),
    "br": (1.0, 0.0, 1.0, 0.0),
    "br2": (1.0, 0.0, 1.0, 1.0),
    "bsr": (1.0, 1.0, 0.5, 0.0),
}
FAMILIES = ("lwf", "lwm")


def plain_loss(
    strategy: str,
    *,
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    targets: Tensor,
    task_sizes: Sequence[int],
    temperature: float = 2.0,
) -> Tensor:
    """Everything but the attention term; logits are [batch, classes], the teacher's of the old tasks."""
    joint, separated, binary, prediction = FORMS[strategy.partition("-")[2]]
    *old, new = torch.split(student_logits, list(task_sizes), dim=1)
    new_targets = targets - sum(task_sizes[:-1])
    loss = F.cross_entropy(new, new_targets)
    if prediction:
        one_hot = F.one_hot(new_targets, new.shape[1]).float()
        loss = loss + prediction * F.binary_cross_entropy_with_logits(new, one_hot)
    if teacher_logits is None:
        return loss
    if joint:
        loss = loss + joint * soft_cross_entropy(torch.cat(old, dim=1), teacher_logits, temperature)
    for student, teacher in zip(old, torch.split(teacher_logits, list(task_sizes[:-1]), dim=1), strict=True):
        if separated:
            loss = loss + separated * soft_cross_entropy(student, teacher, temperature)
        if binary:
            loss = loss + binary * F.binary_cross_entropy_with_logits(student, torch.sigmoid(teacher))
    return loss


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KD_T."""
    return F.cross_entropy(student_logits / temperature, torch.softmax(teacher_logits / temperature, dim=1))


def attention_distance(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    """Att, of maps [batch, h, w]."""
    student, teacher = F.normalize(student_maps.flatten(1), dim=1), F.normalize(teacher_maps.flatten(1), dim=1)
    return (student - teacher).abs().sum(dim=1).mean()
