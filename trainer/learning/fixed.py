"""Fixed parts: modules and rows of a network that training does not change."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from losses.strategies import Strategy
from trainer.networks import IncrementalNetwork


class Rows:
    """Fixed rows of a parameter whose other rows are trained."""

    def __init__(self, parameter: nn.Parameter, stays: Tensor) -> None:
        """``stays`` is bool [rows], on the CPU; the rows stay at the values they have now."""
        self._parameter = parameter
        self._stays = stays.view(-1, *[1] * (parameter.ndim - 1)).to(parameter.device)
        self._values = parameter.detach().clone()

    def hide(self) -> None:
        """Set their gradient to 0, as it would count in the norm by which gradients are clipped."""
        if self._parameter.grad is not None:
            self._parameter.grad.masked_fill_(self._stays, 0.0)

    @torch.no_grad()
    def restore(self) -> None:
        """Undo the changes that weight decay and momentum made to them."""
        self._parameter.copy_(torch.where(self._stays, self._values, self._parameter))


@dataclass(frozen=True)
class Fixed:
    """Modules that stay the same to the last bit, and fixed rows of other modules."""

    modules: tuple[nn.Module, ...] = ()
    rows: tuple[Rows, ...] = ()

    def before_step(self) -> None:
        """To be called between the backward pass and the optimiser's step."""
        for rows in self.rows:
            rows.hide()

    def after_step(self) -> None:
        """To be called after the optimiser's step."""
        for rows in self.rows:
            rows.restore()


def fixed_parts(network: IncrementalNetwork, *, strategy: Strategy, shown: Sequence[int], old_tasks: int) -> Fixed:
    """The parts that a strategy fixes, and the head rows of old classes without training images (LOSSES, Notation).

    ``shown`` is the number of training images of each class. The first ``old_tasks`` heads are the parent's.
    """
    if not old_tasks:
        return Fixed()
    backbone = (network.backbone,) if strategy.backbone_fixed else ()
    old = list(network.heads)[:old_tasks]
    if strategy.old_heads_fixed:
        return Fixed((*backbone, *old))
    modules: list[nn.Module] = [*backbone]
    rows: list[Rows] = []
    bounds = [sum(network.task_sizes[:task]) for task in range(old_tasks + 1)]
    for head, (start, stop), counts in zip(old, pairwise(bounds), network.rows[:old_tasks], strict=True):
        stays = torch.tensor([count == 0 for count in shown[start:stop]]).repeat_interleave(torch.tensor(counts))
        if stays.all():
            modules.append(head)
        elif stays.any():
            rows += [Rows(parameter, stays) for parameter in head.parameters()]
    return Fixed(tuple(modules), tuple(rows))
