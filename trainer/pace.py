"""How fast training goes, and how far it is."""

import math
import time
from typing import Any

from torch import Tensor

from trainer.reporting import Report


class LossNotFinite(Exception):
    """Training diverged; another attempt with the same recipe would as well."""


class Pace:
    """Keeps the count of steps, loss and speed; looks at the loss, which makes a GPU wait, only when it reports."""

    def __init__(self, report: Report, *, epochs: int, steps: int, begun: int = 0) -> None:
        """Of ``epochs`` with ``steps`` each, ``begun`` were done by an earlier attempt."""
        self._report = report
        self._epochs = epochs
        self._steps = steps
        self._begun = begun
        self._began = time.monotonic()
        self._images = 0

    def begin(self, epoch: int) -> None:
        """An epoch begins, counted from 1."""
        self._epoch = epoch
        self._epoch_began = time.monotonic()
        self._epoch_images = 0
        self._loss_sum: Tensor | float = 0.0

    def advance(self, step: int, loss: Tensor, images: int) -> None:
        """A step of the epoch is done, counted from 1, on so many images."""
        self._step = step
        self._loss_sum = self._loss_sum + loss
        self._images += images
        self._epoch_images += images
        if self._report.due():
            self._report.progress(**self._state())

    def end(self) -> None:
        """The epoch is complete; raises `LossNotFinite` if its loss was not."""
        seconds = time.monotonic() - self._epoch_began
        self._report.progress(**self._state())
        self._report.epoch(
            epoch=self._epoch,
            epochs=self._epochs,
            loss=self._mean_loss(),
            images_per_second=round(self._epoch_images / max(seconds, 1e-9), 1),
            seconds=round(seconds, 3),
        )

    def _mean_loss(self) -> float:
        loss = float(self._loss_sum) / self._step
        if not math.isfinite(loss):
            raise LossNotFinite(
                f"the loss is {loss} in epoch {self._epoch}: lower learning_rate, or set gradient_clip in the recipe"
            )
        return round(loss, 6)

    def _state(self) -> dict[str, Any]:
        done = (self._epoch - 1 - self._begun) * self._steps + self._step  # by this attempt
        whole = (self._epochs - self._begun) * self._steps
        elapsed = time.monotonic() - self._began
        return {
            "epoch": self._epoch,
            "epochs": self._epochs,
            "step": self._step,
            "steps": self._steps,
            "loss": self._mean_loss(),
            "images_per_second": round(self._images / max(elapsed, 1e-9), 1),
            "eta_seconds": round(elapsed / done * (whole - done), 1),
        }
