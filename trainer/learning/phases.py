"""The phases an increment goes through, one after another over one loop (`trainer.learning.training`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from losses import Objective, objective
from losses.strategies import Strategy
from trainer.learning.alignment import align_weights
from trainer.learning.data import ImageSet
from trainer.learning.fixed import Fixed, fixed_parts
from trainer.networks import IncrementalNetwork
from trainer.recipes import Recipe, Sampling


def unchanged(_network: IncrementalNetwork) -> None:
    """Leave the weights as training has left them."""


@dataclass(frozen=True)
class Phase:
    """One row: which parts are fixed, which images are shown and how often, the objective, and the schedule."""

    fixed: Callable[[IncrementalNetwork], Fixed]  # called when the phase begins
    images: ImageSet
    sampling: Sampling
    objective: Objective
    recipe: Recipe  # epochs, minibatches, augmentation, learning rates and their schedule
    finish: Callable[[IncrementalNetwork], None] = unchanged  # called once, after the last epoch; in place


def phases_of(
    strategy: Strategy, recipe: Recipe, *, images: ImageSet, task_sizes: Sequence[int], old_tasks: int
) -> tuple[Phase, ...]:
    """The phases of an increment: one, which trains the whole network on every image shown and may align its heads.

    ``task_sizes`` are the classes of each head. The first ``old_tasks`` heads are the parent's.
    """
    gains_a_head = len(task_sizes) > old_tasks
    whole = Phase(
        fixed=partial(fixed_parts, strategy=strategy, shown=images.counts(sum(task_sizes)), old_tasks=old_tasks),
        images=images,
        sampling=recipe.sampling,
        objective=objective(strategy.name, **recipe.objective(strategy.name)),
        recipe=recipe,
        finish=align_weights if recipe.align_weights and gains_a_head else unchanged,
    )
    return (whole,)
