"""The increment itself, on tensors: from the previous version and new images to a network that knows more classes.

No storage, no HTTP: the service's worker and experiments in process train through this one function.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from losses import objective
from losses.strategies import Strategy
from storage.errors import RecipeInvalid
from trainer.learning.alignment import align_weights
from trainer.learning.checkpoint import Checkpoints
from trainer.learning.compute import ComputeConfig, choose
from trainer.learning.data import ImageSet, channel_statistics
from trainer.learning.distillation import DistillationStep
from trainer.learning.fixed import fixed_parts
from trainer.learning.learned import Learned
from trainer.learning.seeds import Seeds
from trainer.learning.training import train
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
    check_fit(
        chosen.name,
        recipe,
        network=architecture.network,
        channels=architecture.channels,
        image_size=architecture.image_size,
        head_kind=parent.network.head_kind if parent else None,
    )
    seeds = Seeds(recipe.seed, t)
    torch.manual_seed(seeds.of("weights"))  # heads and, at first, the backbone draw their initial weights from here
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
    execution = ComputeConfig.from_json(saved.state["execution"]) if saved else choose(device, recipe.precision)
    torch.set_num_threads(execution.threads)
    goal = objective(strategy, **recipe.objective(strategy))
    distillation = DistillationStep(
        student=network.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        teacher=_teacher(parent, device) if goal.distils else None,
        objective=goal,
        shown=tuple(counts),
        old_tasks=old_tasks,
    )
    train(
        distillation,
        images=shown,
        transform=transform,
        fixed=fixed_parts(network, chosen, shown=counts, old_tasks=old_tasks),
        recipe=recipe,
        seeds=seeds,
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
