"""Terms that keep the representation of the previous version: features, attention maps and margins of classes."""

from torch import Tensor
from torch.nn import functional as F

SMALLEST_NORM = 1e-12  # of an attention map: a map of zeros stays zero


def attention_distillation(*, student_attention: Tensor, teacher_attention: Tensor) -> Tensor:
    """Att: L1 distance, summed over positions, of L2-normalised attention maps [batch, h, w]; batch mean.

    Dhar et al., Learning without memorizing, arXiv:1811.08051, §4.
    """
    student = F.normalize(student_attention.flatten(1), dim=1, eps=SMALLEST_NORM)
    teacher = F.normalize(teacher_attention.flatten(1), dim=1, eps=SMALLEST_NORM)
    return (student - teacher).abs().sum(dim=1).mean()


def less_forget(*, student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """1 − cosine of student's and teacher's features [batch, dim], batch mean.

    Hou et al., Learning a unified classifier incrementally via rebalancing, CVPR 2019, Eq. 6.
    """
    return (1 - F.cosine_similarity(student_features, teacher_features, dim=1)).mean()


def margin_ranking(
    *, cosines: Tensor, targets: Tensor, old_classes: int, margin: float = 0.5, hardest_classes: int = 2
) -> Tensor:
    """max(0, margin − cosine of an old image's class + cosine of a new one), for its hardest new classes.

    ``cosines`` [batch, classes] are not scaled by η; ``targets`` are int64 [batch]. The result is the mean over the old
    images of the minibatch and, for each, over the ``hardest_classes`` new classes nearest to it (all, if there are
    fewer); 0 without old images. Hou et al. 2019, Eq. 8, with margin 0.5 and 2 classes (§4.1). The paper sums over the
    hardest classes; the published program takes their mean, as here.
    """
    is_old = (targets < old_classes).to(cosines.dtype)
    of_class = cosines.gather(1, targets[:, None])
    new = cosines[:, old_classes:]
    hardest = new.topk(min(hardest_classes, new.shape[1]), dim=1).values
    violations = F.relu(margin - of_class + hardest).mean(dim=1)
    # A sum over a mask instead of a selection, whose size the CPU would have to wait for.
    return (violations * is_old).sum() / is_old.sum().clamp_min(1)
