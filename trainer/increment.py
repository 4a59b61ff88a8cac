"""The increment itself, on tensors: from the previous version and new images to a network that knows more classes.

No storage, no HTTP: the service's worker and experiments in process train through this one function.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from losses import objective
from losses.strategies import Strategy
from storage.errors import RecipeInvalid
from trainer.alignment import align_weights
from trainer.chance import Chance
from trainer.checkpoint import Checkpoints
from trainer.data import ImageSet, channel_statistics
from trainer.execution import Execution, choose
from trainer.fixed import fixed_parts
from trainer.lesson import Lesson
from trainer.networks import EvaluationTransform, IncrementalNetwork, build, folded, load_initial_weights
from trainer.pace import LossNotFinite
from trainer.recipes import Recipe, check_fit, known
from trainer.reporting import Report
from trainer.training import train

EVALUATION_MINIBATCH = 256
PROCEDURE = 2  # how recipe and images become weights: counted up where the same ones come to others


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
    execution: Execution | None = None  # how it was computed; None for one that was read from its folder


def learn(
    *,
    parent: Learned | None,
    architecture: Architecture,
    new_classes: int,
    images: ImageSet,
    exemplars: ImageSet | None,
    strategy: str,
    recipe: Recipe,
    t: int,
    weights_folder: Path,
    device: torch.device,
    report: Report,
    checkpoints: Checkpoints | None = None,
) -> Learned:
    """Train one increment on ``images`` of the batch and the parent's ``exemplars``; the parent is left as it was.

    ``t`` versions are before it in its line of ancestors; what is random comes from that and the recipe's seed.

    Images of old classes, in either, are rehearsed. Without a new class the network gains no head and all tasks are old
    ones: what the parent says of them is kept while their classes are learned on.

    For a strategy that learns from every image, ``exemplars`` are all
    training images of the old tasks. Normalisation is fixed by the first increment's images, the kind of heads by the
    first increment's strategy. With ``checkpoints`` it goes on from the last one, to the weights it would have come to
    undisturbed. Raises `StrategyUnfit` where the network is not what the strategy needs,
    `RecipeInvalid` for initial weights that are missing or do not fit, and `LossNotFinite`.
    """
    chosen = known(strategy)
    check_fit(
        chosen.name,
        recipe,
        network=architecture.network,
        channels=architecture.channels,
        image_size=architecture.image_size,
        head_kind=parent.network.head_kind if parent else None,
    )
    chance = Chance(recipe.seed, t)
    torch.manual_seed(chance.of("weights"))  # heads and, at first, the backbone draw their initial weights from here
    if parent is None or chosen.every_image:
        network = _fresh(architecture, chosen, parent, recipe, weights_folder)
    else:
        network = copy.deepcopy(parent.network)
    if parent is None:
        with report.opaque():
            mean, std = channel_statistics(images)
        transform = EvaluationTransform(architecture.image_size, architecture.channels, mean=mean, std=std)
    else:
        transform = parent.transform
    old_tasks = len(network.heads)
    if new_classes:
        network.add_task(new_classes)
    shown = images + exemplars if exemplars else images
    counts = shown.targets.bincount(minlength=sum(network.task_sizes)).tolist()
    saved = checkpoints.load() if checkpoints is not None else None
    execution = Execution.from_json(saved.state["execution"]) if saved else choose(device, recipe.precision)
    torch.set_num_threads(execution.threads)
    goal = objective(strategy, **recipe.objective(strategy))
    lesson = Lesson(
        student=network.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        teacher=_teacher(parent, device) if goal.weights.distils else None,
        objective=goal,
        shown=tuple(counts),
        old_tasks=old_tasks,
    )
    train(
        lesson,
        images=shown,
        transform=transform,
        fixed=fixed_parts(network, chosen, shown=counts, old_tasks=old_tasks),
        recipe=recipe,
        chance=chance,
        execution=execution,
        report=report,
        saved=saved,
        checkpoints=checkpoints,
    )
    if recipe.align_weights and new_classes:
        align_weights(network)
    return Learned(network.eval(), transform, execution)


def _fresh(
    architecture: Architecture, strategy: Strategy, parent: Learned | None, recipe: Recipe, weights_folder: Path
) -> IncrementalNetwork:
    """A network that has learned nothing yet, with heads for the tasks the parent knows."""
    network = build(
        architecture.network,
        channels=architecture.channels,
        image_size=architecture.image_size,
        task_sizes=parent.network.task_sizes if parent else (),
        head_kind=strategy.head_beside(parent.network.head_kind if parent else None),
    )
    if recipe.initial_weights is not None:
        _start_from(network, weights_folder / recipe.initial_weights)
    return network


def _start_from(network: IncrementalNetwork, file: Path) -> None:
    try:
        load_initial_weights(network, file)
    except (OSError, ValueError) as error:
        raise RecipeInvalid(f"initial_weights {file.name!r} cannot be used: {error}") from error


def _teacher(parent: Learned | None, device: torch.device) -> IncrementalNetwork | None:
    if parent is None:
        return None
    return folded(parent.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@torch.inference_mode()
def logits_of(learned: Learned, images: ImageSet, *, report: Report) -> Tensor:
    """Logits float32 [images, classes] in evaluation mode, on the CPU; raises `LossNotFinite` if one is not finite."""
    return _outputs(learned, learned.network, images, width=sum(learned.network.task_sizes), report=report, to="cpu")


@torch.inference_mode()
def features_of(learned: Learned, images: ImageSet, *, report: Report) -> Tensor:
    """Features float32 [images, dim] in evaluation mode, where the network is; raises `LossNotFinite` as above."""
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
    if not bool(found.isfinite().all()):  # the very last step can diverge after its loss was looked at
        raise LossNotFinite("the trained network's outputs are not finite: lower learning_rate in the recipe")
    return found


def head_rows(network: IncrementalNetwork) -> tuple[list[float], list[float] | None]:
    """Euclidean norm of each class's row in its head, and its bias (None without), in the order of the logits."""
    biases = network.biases()
    return network.row_norms().tolist(), biases.tolist() if biases is not None else None
