"""Terms that learn from labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

NEVER_IGNORED = torch.iinfo(torch.int64).min
# torch's default of −100 would silently skip an old class 0 when the new task starts at class 100


def softmax_cross_entropy(*, student_logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """CE: −log softmax at the target, in nats, batch mean; [batch, classes] and int64 [batch] to a scalar.

    With label smoothing ε the target keeps 1 − ε and ε is spread evenly over all classes (arXiv:1512.00567 §7).
    """
    return F.cross_entropy(student_logits, targets, ignore_index=NEVER_IGNORED, label_smoothing=label_smoothing)


def binary_prediction(*, student_logits: Tensor, targets: Tensor) -> Tensor:
    """P: binary cross-entropy of the sigmoids to one-hot targets, in nats, mean over minibatch and classes.

    [batch, classes] and int64 [batch] to a scalar. For the other classes 1 − σ(z) is computed as σ(−z), since the
    difference has no digits left where σ is near 1.
    """
    sign = 2 * F.one_hot(targets, student_logits.shape[1]) - 1
    return -F.logsigmoid(sign * student_logits).mean()
