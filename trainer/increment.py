"""The increment itself, on tensors: from the previous version and new images to a network that knows more classes.

No storage, no HTTP: the service's worker and experiments in process train through this one function.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from losses import objective
from losses.strategies import get as strategy_named
from storage.errors import RecipeInvalid
from trainer.data import ImageSet, channel_statistics
from trainer.networks import EvaluationTransform, IncrementalNetwork, build, load_initial_weights
from trainer.recipes import Recipe
from trainer.reporting import Report
from trainer.training import LossNotFinite, train

EVALUATION_MINIBATCH = 256


@dataclass(frozen=True)
class Architecture:
    """What a model's first increment builds."""

    network: str
    image_size: int
    channels: int


@dataclass(frozen=True)
class Learned:
    """A network after an increment, and how images are brought before it."""

    network: IncrementalNetwork
    transform: EvaluationTransform


def learn(
    *,
    parent: Learned | None,
    architecture: Architecture,
    new_classes: int,
    images: ImageSet,
    exemplars: ImageSet | None,
    known_classes_in_batch: bool,
    strategy: str,
    recipe: Recipe,
    weights_folder: Path,
    device: torch.device,
    report: Report,
) -> Learned:
    """Train one increment on ``images`` of the batch and the parent's ``exemplars``; the parent is left as it was.

    Normalisation is fixed by the first increment's images. Raises `RecipeInvalid` for initial weights that are missing
    or do not fit, and `trainer.training.LossNotFinite`.
    """
    torch.manual_seed(recipe.seed)  # heads and, at first, the backbone draw their initial weights from here
    if parent is None:
        network = build(architecture.network, channels=architecture.channels, image_size=architecture.image_size)
        if recipe.initial_weights is not None:
            _start_from(network, weights_folder / recipe.initial_weights)
        mean, std = channel_statistics(images.pixels)
        transform = EvaluationTransform(architecture.image_size, architecture.channels, mean=mean, std=std)
    else:
        network, transform = copy.deepcopy(parent.network), parent.transform
    network.add_task(new_classes)
    rehearsal = bool(exemplars) or (parent is not None and known_classes_in_batch)
    train(
        student=network.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        teacher=_teacher(parent, device) if strategy_named(strategy).weights.distils else None,
        images=images + exemplars if exemplars else images,
        transform=transform,
        objective=objective(strategy, **recipe.objective(strategy)),
        recipe=recipe,
        rehearsal=rehearsal,
        report=report,
    )
    return Learned(network.eval(), transform)


def _start_from(network: IncrementalNetwork, file: Path) -> None:
    try:
        load_initial_weights(network, file)
    except (OSError, ValueError) as error:
        raise RecipeInvalid(f"initial_weights {file.name!r} cannot be used: {error}") from error


def _teacher(parent: Learned | None, device: torch.device) -> IncrementalNetwork | None:
    if parent is None:
        return None
    teacher = copy.deepcopy(parent.network)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher.eval().requires_grad_(False)
    return teacher


@torch.inference_mode()
def logits_of(learned: Learned, images: ImageSet, *, report: Report) -> Tensor:
    """Logits float32 [images, classes] in evaluation mode, on the CPU; raises `LossNotFinite` if one is not finite."""
    network = learned.network.eval()
    device = next(network.parameters()).device
    parts: list[Tensor] = []
    for pixels in torch.split(images.pixels, EVALUATION_MINIBATCH):
        inputs = learned.transform.normalise(pixels.to(device))
        parts.append(network(inputs).float().cpu())
        report.progress(step=min(len(parts) * EVALUATION_MINIBATCH, len(images)), steps=len(images))
    logits = torch.cat(parts) if parts else torch.empty(0, sum(network.task_sizes))
    if not bool(logits.isfinite().all()):  # the very last step can diverge after its loss was looked at
        raise LossNotFinite("the trained network's outputs are not finite: lower learning_rate in the recipe")
    return logits


def head_rows(network: IncrementalNetwork) -> tuple[list[float], list[float]]:
    """Euclidean norm and bias of each class's row in its head, in the order of the logits."""
    heads = [head for head in network.heads if isinstance(head, nn.Linear)]
    norms = torch.cat([head.weight.detach().norm(dim=1) for head in heads])
    biases = torch.cat([head.bias.detach() for head in heads])
    return norms.tolist(), biases.tolist()
