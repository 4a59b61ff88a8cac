"""Schedules: how the learning rate changes during training, and when training ends."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

VALIDATED = frozenset({"plateau"})  # the kinds that ask for a validation loss


class Schedule(Protocol):
    """The calls that the training loop makes to a schedule, which sets the optimiser's learning rate."""

    def step(self) -> None:
        """Called after each step of the optimiser."""

    def epoch(self, validation_loss: float | None) -> bool:
        """Called after each epoch; whether training ends here. The loss is None without validation images."""

    def finish(self) -> None:
        """Called after the last epoch."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The schedule's state, without the optimiser's: JSON values, and tensors by name."""

    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state; the optimiser and the network were restored before."""


def schedule_for(
    kind: str,
    optimiser: torch.optim.Optimizer,
    network: nn.Module,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float,
    patience: int,
    rate_divisor: float,
    lowest_rate: float,
) -> Schedule:
    """The schedule of a kind, from the optimiser's rate and momentum: constant, cosine, one-cycle or plateau.

    The first three have a fixed length. ``one-cycle`` (Smith and Topin, arXiv:1708.07120) has its own warm-up. It moves
    momentum against the rate, from the optimiser's momentum to 0.1 less and back. The last three arguments are those of
    `Plateau`. Raises ValueError for any other kind.
    """
    total, warmup = epochs * steps_per_epoch, warmup_epochs * steps_per_epoch
    match kind:
        case "constant" | "cosine":
            factor = learning_rate_factor(kind, warmup=warmup, total=total)
            return Planned(torch.optim.lr_scheduler.LambdaLR(optimiser, factor))
        case "one-cycle":
            return Planned(_one_cycle(optimiser, total=total))
        case "plateau":
            return Plateau(
                optimiser,
                network,
                patience=patience,
                rate_divisor=rate_divisor,
                lowest_rate=lowest_rate,
                rise=learning_rate_factor("constant", warmup=warmup, total=total),
            )
    raise ValueError(f"no schedule {kind!r}; known are constant, cosine, one-cycle and plateau")


def learning_rate_factor(kind: str, *, warmup: float, total: int) -> Callable[[int], float]:
    """The factor of the learning rate at each of ``total`` steps; it rises linearly for the first ``warmup`` steps.

    ``constant`` stays at 1; ``cosine`` falls to 0 along half a cosine (Loshchilov and Hutter, arXiv:1608.03983, Eq. 5,
    without restarts). The warm-up takes at most half of the steps.
    """
    rising = round(min(warmup, total / 2))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if kind == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1))) / 2

    return factor


def _one_cycle(optimiser: torch.optim.Optimizer, *, total: int) -> torch.optim.lr_scheduler.LRScheduler:
    momenta = [float(group["momentum"]) for group in optimiser.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=[group["lr"] for group in optimiser.param_groups],
        total_steps=total + 1,  # it also computes a rate after the last step
        cycle_momentum=max(momenta) > 0,
        base_momentum=[max(momentum - 0.1, 0.0) for momentum in momenta],
        max_momentum=momenta,
    )


class Planned:
    """A schedule that is fixed in advance, step by step; it does not depend on the loss."""

    def __init__(self, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        self._scheduler = scheduler

    def step(self) -> None:
        """Go on to the rate of the next step."""
        self._scheduler.step()

    def epoch(self, validation_loss: float | None) -> bool:
        """Return False: the length is fixed."""
        return False

    def finish(self) -> None:
        """Keep the last weights."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The scheduler's state."""
        return self._scheduler.state_dict(), {}

    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        self._scheduler.load_state_dict(dict(values))


class Plateau:
    """The published schedule (LOSSES): the rate is divided when the validation loss no longer falls.

    After ``patience`` epochs in a row without a new lowest loss, the best weights are restored, with buffers such as
    batch normalisation's statistics, and every rate is divided by ``rate_divisor``. Training ends, with the best
    weights, once all rates are below ``lowest_rate``. ``rise`` gives a factor of the rates at each step, for a warm-up.

    - A loss that is NaN counts as no improvement: the best weights and a lower rate are the remedy.
    - Without a loss (None) nothing changes: the rate stays, and the last weights are kept.
    - Momentum is cleared when weights are restored, since the old momentum led away from them.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        network: nn.Module,
        *,
        patience: int,
        rate_divisor: float,
        lowest_rate: float,
        rise: Callable[[int], float] = lambda _step: 1.0,
    ) -> None:
        self._optimiser = optimiser
        self._network = network
        self._patience = patience
        self._rate_divisor = rate_divisor
        self._lowest_rate = lowest_rate
        self._rise = rise
        self._rates = [float(group["lr"]) for group in optimiser.param_groups]  # without the rise
        self._steps = 0
        self._lowest_loss = math.inf
        self._best: list[Tensor] = []  # copies, in the order of _tensors; none before the first loss
        self._waited = 0  # epochs since the lowest loss, or since the rate was last divided
        self._set_rates()

    def step(self) -> None:
        """Go on with the warm-up, if it is not over."""
        self._steps += 1
        self._set_rates()

    def epoch(self, validation_loss: float | None) -> bool:
        """Keep the weights if they are the best so far, else count the epoch; True once the rate is too low."""
        if validation_loss is None:
            return False
        if validation_loss < self._lowest_loss:
            self._lowest_loss = validation_loss
            self._best = [tensor.detach().clone() for tensor in self._tensors()]
            self._waited = 0
            return False
        self._waited += 1
        if self._waited < self._patience:
            return False
        self._waited = 0
        self.finish()
        self._optimiser.state.clear()
        self._rates = [rate / self._rate_divisor for rate in self._rates]
        self._set_rates()
        return max(self._rates) < self._lowest_rate

    @torch.no_grad()
    def finish(self) -> None:
        """Restore the best weights."""
        if self._best:
            for tensor, best in zip(self._tensors(), self._best, strict=True):
                tensor.copy_(best)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Rates, patience and the best weights."""
        values = {
            "rates": self._rates,
            "steps": self._steps,
            "waited": self._waited,
            "lowest_loss": self._lowest_loss if self._best else None,  # JSON has no infinity
        }
        return values, {f"best.{place}": tensor for place, tensor in enumerate(self._best)}

    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Restore rates, patience and the best weights."""
        self._rates, self._steps, self._waited = values["rates"], values["steps"], values["waited"]
        if values["lowest_loss"] is not None:
            self._lowest_loss = values["lowest_loss"]
            own = self._tensors()
            self._best = [torch.empty_like(tensor).copy_(tensors[f"best.{at}"]) for at, tensor in enumerate(own)]
        self._set_rates()

    def _tensors(self) -> list[Tensor]:
        return [*self._network.parameters(), *self._network.buffers()]

    def _set_rates(self) -> None:
        rise = self._rise(self._steps)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * rise
