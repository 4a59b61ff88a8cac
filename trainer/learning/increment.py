"""The increment itself, on tensors: from the previous version and new images to a network that knows more classes.

No storage, no HTTP: the service's worker and experiments in process train through this one function.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from losses.strategies import Strategy
from storage.errors import RecipeInvalid
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

PROCEDURE = 2  # how recipe and images become weights: counted up where the same ones come to others


@dataclass(frozen=True)
class Architecture:
    """What a model's first increment builds."""

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
    _check(chosen, recipe, architecture, parent)
    seeds = Seeds(recipe.seed, t)
    torch.manual_seed(seeds.of("weights"))  # heads and, at first, the backbone draw their initial weights from here
    network = _begun(architecture, chosen, parent, recipe, weights_folder)
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
    """Whether the strategy can work on the network; may build one, and so draws random numbers."""
    check_fit(
        strategy.name,
        recipe,
        network=architecture.network,
        channels=architecture.channels,
        image_size=architecture.image_size,
        head_kind=parent.network.head_kind if parent else None,
    )


def _begun(
    architecture: Architecture, strategy: Strategy, parent: Learned | None, recipe: Recipe, weights_folder: Path
) -> IncrementalNetwork:
    """What learning starts from: the parent's network, or a fresh one with heads for the tasks the parent knows."""
    if parent is not None and not strategy.every_image:
        return copy.deepcopy(parent.network)
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


def _transform_of(images: ImageSet, architecture: Architecture, report: Report) -> EvaluationTransform:
    """Normalisation by the first images, which every later version keeps."""
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
