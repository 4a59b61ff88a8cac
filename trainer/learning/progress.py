"""Progress and speed of training."""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.learning.minibatches import Extent
from trainer.reporting import LossNotFinite, Report


class Progress:
    """Counts steps, loss and speed; within an epoch it never waits for a GPU to read the loss."""

    def __init__(self, report: Report, extents: Sequence[Extent]) -> None:
        """``extents`` are those of all phases, including phases that an earlier attempt completed."""
        self._report = report
        self._each = [steps for epochs, steps in extents for _ in range(epochs)]  # steps of every epoch
        self._epochs = len(self._each)
        self._done = 0  # steps of complete epochs, by this attempt
        self._began = time.monotonic()
        self._images = 0

    def begin(self, epoch: int) -> None:
        """An epoch begins, counted from 1 over all phases."""
        self._epoch = epoch
        self._steps = self._each[epoch - 1]
        self._left = sum(self._each[epoch - 1 :])
        self._epoch_began = time.monotonic()
        self._epoch_images = 0
        self._loss_sum: Tensor | float = 0.0
        self._glance: _LossCopy | None = None

    def advance(self, step: int, loss: Tensor, images: int) -> None:
        """A step of the epoch is done: its number from 1, its loss (a scalar) and its number of images."""
        self._step = step
        self._loss_sum = self._loss_sum + loss
        self._images += images
        self._epoch_images += images
        if self._report.due() and (seen := self._glanced()) is not None:
            self._report.progress(**self._state(seen))

    def end(self) -> None:
        """The epoch is complete; raises `LossNotFinite` if its mean loss is not finite."""
        loss = self._checked(float(self._loss_sum) / self._step)
        seconds = time.monotonic() - self._epoch_began  # after the loss is read, when a GPU has finished
        self._report.progress(**self._state(loss))
        self._report.epoch(
            epoch=self._epoch,
            epochs=self._epochs,
            loss=loss,
            images_per_second=round(self._epoch_images / max(seconds, 1e-9), 1),
            seconds=round(seconds, 3),
        )
        self._done += self._steps

    def _glanced(self) -> float | None:
        """A recent mean loss of the epoch; None until its copy from the device is complete."""
        if self._glance is None:
            self._glance = _LossCopy(torch.as_tensor(self._loss_sum / self._step))
        if (loss := self._glance.value()) is None:
            return None
        self._glance = None
        return self._checked(loss)

    def _checked(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise LossNotFinite(
                f"the loss is {loss} in epoch {self._epoch}: lower learning_rate, or set gradient_clip in the recipe"
            )
        return round(loss, 6)

    def _state(self, loss: float) -> dict[str, Any]:
        done = self._done + self._step
        elapsed = time.monotonic() - self._began
        return {
            "epoch": self._epoch,
            "epochs": self._epochs,
            "step": self._step,
            "steps": self._steps,
            "loss": loss,
            "images_per_second": round(self._images / max(elapsed, 1e-9), 1),
            "eta_seconds": round(elapsed / done * (self._left - self._step), 1),
        }


class _LossCopy:
    """A number that is copied from a device asynchronously, while the device goes on computing."""

    def __init__(self, number: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._number = number
        if number.is_cuda:
            self._number = torch.empty_like(number, device="cpu", pin_memory=True).copy_(number, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def value(self) -> float | None:
        """The number; None until it is copied."""
        on_its_way = self._arrived is not None and not self._arrived.query()  # type: ignore[no-untyped-call]
        return None if on_its_way else float(self._number)
