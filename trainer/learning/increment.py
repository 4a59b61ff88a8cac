"""The increment itself, on tensors: from the previous version and new images to a network that knows more classes.

No storage, no HTTP: the service's worker and experiments in process train through this one function.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from losses.strategies import Strategy
from storage.errors import RecipeInvalid, UnknownNetwork
from trainer.learning.checkpoint import Checkpoints
from trainer.learning.compute import ComputeConfig, choose
from trainer.learning.data import ImageSet, channel_statistics
from trainer.learning.learned import Learned
from trainer.learning.phases import phases_of
from trainer.learning.seeds import Seeds
from trainer.learning.training import Training, train
from trainer.networks import EvaluationTransform, IncrementalNetwork, build, folded, load_initial_weights
from trainer.recipes import Recipe, check_fit, known
from trainer.reporting import Report

PROCEDURE = 2  # version of the training procedure; increased when the same recipe and images give other weights


@dataclass(frozen=True)
class Architecture:
    """The network that a model's first increment builds; ``image_size`` is the height and the width, in pixels."""

    network: str
    image_size: int
    channels: int


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
    """Train one increment on ``images`` of the batch and the parent's ``exemplars``; the parent is not changed.

    ``t`` is the number of versions before it in its line of ancestors. Randomness depends on ``t`` and the recipe's
    seed only. Images of old classes, in ``images`` or ``exemplars``, are rehearsed. Without a new class the network
    gains no head, and all tasks are old: what the parent predicts for them is distilled while their classes are trained
    further. For a strategy that learns from every image, ``exemplars`` are all training images of the old tasks.

    The first increment's images fix the normalisation, and its strategy fixes the kind of heads. With ``checkpoints``,
    training goes on from the last one, and gives the same weights as without an interruption. Raises `StrategyUnfit` if
    the network does not fit the strategy, `UnknownNetwork` if the installed torchvision cannot build it,
    `RecipeInvalid` if initial weights are missing or do not fit, and `LossNotFinite`.
    """
    chosen = known(strategy)
    _check(chosen, recipe, architecture, parent)
    seeds = Seeds(recipe.seed, t)
    torch.manual_seed(seeds.of("weights"))  # heads and, at first, the backbone draw their initial weights from here
    network = _initial_network(architecture, chosen, parent, recipe, weights_folder)
    old_tasks = len(network.heads)
    if new_classes:
        network.add_task(new_classes)
    transform = parent.transform if parent is not None else _transform_of(images, architecture, report)
    saved = checkpoints.load() if checkpoints is not None else None
    execution = ComputeConfig.from_json(saved.state["execution"]) if saved else choose(device, recipe.precision)
    torch.set_num_threads(execution.threads)
    phases = phases_of(
        chosen,
        recipe,
        images=images + exemplars if exemplars else images,
        task_sizes=network.task_sizes,
        old_tasks=old_tasks,
    )
    training = Training(
        student=network.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        teacher=_teacher(parent, device) if any(phase.objective.distils for phase in phases) else None,
        old_tasks=old_tasks,
        transform=transform,
        seeds=seeds,
        execution=execution,
        report=report,
    )
    train(training, phases, saved=saved, checkpoints=checkpoints)
    return Learned(network.eval(), transform, execution)


def _check(strategy: Strategy, recipe: Recipe, architecture: Architecture, parent: Learned | None) -> None:
    """Raise an error if the strategy or recipe does not fit the network."""
    check_fit(
        strategy.name,
        recipe,
        network=architecture.network,
        channels=architecture.channels,
        image_size=architecture.image_size,
        head_kind=parent.network.head_kind if parent else None,
    )


def _initial_network(
    architecture: Architecture, strategy: Strategy, parent: Learned | None, recipe: Recipe, weights_folder: Path
) -> IncrementalNetwork:
    """The network to start from: a copy of the parent's, or a new one with heads for the tasks the parent knows."""
    if parent is not None and not strategy.every_image:
        return copy.deepcopy(parent.network)
    try:
        network = build(
            architecture.network,
            channels=architecture.channels,
            image_size=architecture.image_size,
            task_sizes=parent.network.task_sizes if parent else (),
            head_kind=strategy.head_beside(parent.network.head_kind if parent else None),
        )
    except ValueError as error:  # this torchvision is not the one that the table of networks was made with
        raise UnknownNetwork(f"the network cannot be built here: {error}") from error
    if recipe.initial_weights is not None:
        _start_from(network, weights_folder / recipe.initial_weights)
    return network


def _transform_of(images: ImageSet, architecture: Architecture, report: Report) -> EvaluationTransform:
    """Normalisation by the first increment's images; every later version keeps it."""
    with report.opaque():
        mean, std = channel_statistics(images)
    return EvaluationTransform(architecture.image_size, architecture.channels, mean=mean, std=std)


def _start_from(network: IncrementalNetwork, file: Path) -> None:
    try:
        load_initial_weights(network, file)
    except (OSError, ValueError) as error:
        raise RecipeInvalid(f"initial_weights {file.name!r} cannot be used: {error}") from error


def _teacher(parent: Learned | None, device: torch.device) -> IncrementalNetwork | None:
    if parent is None:
        return None
    return folded(parent.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
