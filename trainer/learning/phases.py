"""The phases an increment goes through, one after another over one loop (`trainer.learning.training`)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from losses import Objective, objective
from losses.strategies import Strategy
from trainer.learning.data import ImageSet
from trainer.learning.fixed import Fixed, fixed_parts
from trainer.networks import IncrementalNetwork
from trainer.recipes import Recipe, Sampling


@dataclass(frozen=True)
class Phase:
    """One row: what of the network stays, what is shown and how often, what is minimised, and for how long."""

    fixed: Callable[[IncrementalNetwork], Fixed]  # asked when the phase begins
    images: ImageSet
    sampling: Sampling
    objective: Objective
    recipe: Recipe  # epochs, minibatches and their changes, rates and the schedule that moves them


def phases_of(
    strategy: Strategy, recipe: Recipe, *, images: ImageSet, classes: int, old_tasks: int
) -> tuple[Phase, ...]:
    """Those of an increment of a strategy: the whole network at once, on every image that is shown.

    The network will have so many ``classes``; its first ``old_tasks`` heads are the parent's.
    """
    whole = Phase(
        fixed=partial(fixed_parts, strategy=strategy, shown=images.counts(classes), old_tasks=old_tasks),
        images=images,
        sampling=recipe.sampling,
        objective=objective(strategy.name, **recipe.objective(strategy.name)),
        recipe=recipe,
    )
    return (whole,)
