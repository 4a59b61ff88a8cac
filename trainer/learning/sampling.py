"""In which order, and how often, an epoch shows its images."""

from typing import Literal

import torch
from torch import Tensor

from trainer.learning.data import positions_by_class
from trainer.recipes import Sampling

Settled = Literal["uniform", "class-balanced"]


def settled(sampling: Sampling, *, rehearses: bool) -> Settled:
    """The sampling, with ``auto`` resolved: class-balanced in rehearsal, where exemplars are few, else uniform."""
    if sampling == "auto":
        return "class-balanced" if rehearses else "uniform"
    return sampling


def epoch_order(sampling: Settled, targets: Tensor, *, generator: torch.Generator) -> Tensor:
    """Positions int64 [images] of one epoch over images of ``targets`` int64 [images], all on the CPU.

    ``uniform`` shows every image once. ``class-balanced`` shows every class equally often: at each position in the
    order, all classes have the same probability (Kang et al., arXiv:1910.09217, class-balanced sampling). All
    randomness comes from the generator.
    """
    if sampling == "uniform":
        return torch.randperm(len(targets), generator=generator)
    return _class_balanced(targets, generator=generator)


def _class_balanced(targets: Tensor, *, generator: torch.Generator) -> Tensor:
    """The counts of the classes differ by at most one, and so do the counts of the images within a class."""
    by_class = positions_by_class(targets)
    least, over = divmod(len(targets), len(by_class))
    shares = torch.full((len(by_class),), least)
    shares[torch.randperm(len(by_class), generator=generator)[:over]] += 1
    drawn = []
    for members, share in zip(by_class.values(), shares.tolist(), strict=True):
        rounds = -(-share // len(members))  # the last round is partial
        shuffled = members[torch.randperm(len(members), generator=generator)]
        drawn.append(shuffled.repeat(rounds)[:share])
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=generator)]
