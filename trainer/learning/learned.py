"""The result of an increment: a network with its transform; and its outputs for images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.learning.compute import ComputeConfig
from trainer.learning.data import ImageSet
from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.reporting import LossNotFinite, Report

EVALUATION_MINIBATCH = 256


@dataclass(frozen=True)
class Learned:
    """A network after an increment, with the transform of its input images."""

    network: IncrementalNetwork
    transform: EvaluationTransform
    execution: ComputeConfig | None = None  # how it was computed; None if it was loaded from a folder


@torch.inference_mode()
def logits_of(learned: Learned, images: ImageSet, *, report: Report) -> Tensor:
    """Logits float32 [images, classes] in evaluation mode, on the CPU; raises `LossNotFinite` if one is not finite."""
    return _outputs(learned, learned.network, images, width=sum(learned.network.task_sizes), report=report, to="cpu")


@torch.inference_mode()
def features_of(learned: Learned, images: ImageSet, *, report: Report) -> Tensor:
    """Features float32 [images, dim] in evaluation mode, on the network's device; raises `LossNotFinite` as above."""
    return _outputs(learned, learned.network.features, images, width=learned.network.dim, report=report)


def _outputs(
    learned: Learned,
    outputs: Callable[[Tensor], Tensor],
    images: ImageSet,
    *,
    width: int,
    report: Report,
    to: str | None = None,
) -> Tensor:
    device = next(learned.network.eval().parameters()).device
    parts: list[Tensor] = []
    for pixels in images.minibatches(EVALUATION_MINIBATCH):
        inputs = learned.transform.normalise(pixels.to(device))
        parts.append(outputs(inputs).float().to(to or device))
        report.progress(step=min(len(parts) * EVALUATION_MINIBATCH, len(images)), steps=len(images))
    found = torch.cat(parts) if parts else torch.empty(0, width, device=to or device)
    if not bool(found.isfinite().all()):  # the last step can diverge after its loss was checked
        raise LossNotFinite("the trained network's outputs are not finite: lower learning_rate in the recipe")
    return found


def head_rows(network: IncrementalNetwork) -> tuple[list[float], list[float] | None]:
    """Euclidean norm of each class's row in its head, and its bias (None without), in the order of the logits."""
    biases = network.biases()
    return network.row_norms().tolist(), biases.tolist() if biases is not None else None
