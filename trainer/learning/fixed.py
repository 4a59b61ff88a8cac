"""What of a network stays as the parent left it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from losses.strategies import Strategy
from trainer.networks import IncrementalNetwork


class Rows:
    """Rows of a parameter that stay, of one whose other rows learn."""

    def __init__(self, parameter: nn.Parameter, stays: Tensor) -> None:
        """``stays`` is bool [rows], on the CPU; the rows stay at the values they have now."""
        self._parameter = parameter
        self._stays = stays.view(-1, *[1] * (parameter.ndim - 1)).to(parameter.device)
        self._values = parameter.detach().clone()

    def hide(self) -> None:
        """Give them no gradient, which would count in the length of the whole."""
        if self._parameter.grad is not None:
            self._parameter.grad.masked_fill_(self._stays, 0.0)

    @torch.no_grad()
    def restore(self) -> None:
        """Take back what decay and momentum did to them."""
        self._parameter.copy_(torch.where(self._stays, self._values, self._parameter))


@dataclass(frozen=True)
class Fixed:
    """Modules that stay as they are to the last bit, and rows of others."""

    modules: tuple[nn.Module, ...] = ()
    rows: tuple[Rows, ...] = ()

    def before_step(self) -> None:
        """Between gradients and the optimiser's step."""
        for rows in self.rows:
            rows.hide()

    def after_step(self) -> None:
        """After the optimiser's step."""
        for rows in self.rows:
            rows.restore()


def fixed_parts(network: IncrementalNetwork, *, strategy: Strategy, shown: Sequence[int], old_tasks: int) -> Fixed:
    """What a strategy fixes, and the head rows of old classes of which no image is shown (LOSSES, Notation).

    ``shown`` counts images of every class; the first ``old_tasks`` heads are the parent's.
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
    for head, (start, stop) in zip(old, pairwise(bounds), strict=True):
        stays = torch.tensor([count == 0 for count in shown[start:stop]])
        if stays.all():
            modules.append(head)
        elif stays.any():
            rows += [Rows(parameter, stays) for parameter in head.parameters()]
    return Fixed(tuple(modules), tuple(rows))
