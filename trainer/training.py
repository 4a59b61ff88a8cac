"""The training loop: minibatch SGD on images that lie in memory, towards an objective of `losses`."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from losses import Objective
from trainer.augmentation import Augmentation
from trainer.data import ImageSet
from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.recipes import Recipe
from trainer.reporting import Report


class LossNotFinite(Exception):
    """Training diverged; another attempt with the same recipe would as well."""


def train(
    *,
    student: IncrementalNetwork,
    teacher: IncrementalNetwork | None,
    images: ImageSet,
    transform: EvaluationTransform,
    objective: Objective,
    recipe: Recipe,
    rehearsal: bool,
    report: Report,
) -> None:
    """Fit ``student`` to ``images`` in place; ``teacher`` is the version it came from, if the objective asks it.

    Everything random comes from ``recipe.seed``, so on one machine, CPU and thread count the weights repeat to the
    last bit. Raises `LossNotFinite`.
    """
    device = next(student.parameters()).device
    pixels, targets = images.pixels.to(device), images.targets.to(device)
    shuffling = torch.Generator().manual_seed(recipe.seed)
    augment = Augmentation(
        recipe.augmentation,
        image_size=transform.image_size,
        channels=transform.channels,
        generator=torch.Generator(device).manual_seed(recipe.seed),
    )
    trained = _parameters(student, rehearsal=rehearsal)
    optimiser = torch.optim.SGD(
        trained,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    # Parts of nearly one size, of two images at least: one alone leaves batch normalisation nothing to average over.
    steps = max(1, min(math.ceil(len(images) / recipe.minibatch), len(images) // 2))
    schedule = _schedule(optimiser, recipe, steps_per_epoch=steps)
    task_sizes = student.task_sizes
    pace = _Pace(report, epochs=recipe.epochs, steps=steps)
    student.train()
    for epoch in range(1, recipe.epochs + 1):
        pace.begin(epoch)
        order = torch.randperm(len(images), generator=shuffling).to(device)
        for step, chosen in enumerate(order.tensor_split(steps), start=1):
            inputs = transform.normalise(augment(pixels[chosen]))
            loss = objective(
                student_logits=student(inputs),
                teacher_logits=_teach(teacher, inputs),
                targets=targets[chosen],
                task_sizes=task_sizes,
                rehearsal=rehearsal,
            ).total
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.gradient_clip is not None:
                nn.utils.clip_grad_norm_(trained, recipe.gradient_clip)
            optimiser.step()
            schedule.step()
            pace.advance(step, loss.detach(), len(chosen))
        pace.end()


def learning_rate_factor(kind: str, *, warmup: float, total: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by at each step of ``total``, after rising linearly for ``warmup`` steps.

    ``constant`` stays at 1; ``cosine`` falls to 0 along half a cosine (Loshchilov and Hutter, arXiv:1608.03983, Eq. 5,
    without restarts). The warm-up takes half of the steps at most.
    """
    rising = round(min(warmup, total / 2))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if kind == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1))) / 2

    return factor


def _schedule(
    optimiser: torch.optim.Optimizer, recipe: Recipe, *, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=recipe.learning_rate,
            total_steps=total + 1,  # it is asked for the rate after the last step too
            cycle_momentum=recipe.momentum > 0,
            base_momentum=max(recipe.momentum - 0.1, 0.0),
            max_momentum=recipe.momentum,
        )
    factor = learning_rate_factor(recipe.schedule, warmup=recipe.warmup_epochs * steps_per_epoch, total=total)
    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _teach(teacher: IncrementalNetwork | None, inputs: Tensor) -> Tensor | None:
    if teacher is None:
        return None
    with torch.no_grad():
        logits: Tensor = teacher(inputs)
    return logits


def _parameters(student: IncrementalNetwork, *, rehearsal: bool) -> list[nn.Parameter]:
    """What is optimised: everything with rehearsal; without it the old heads stay as they are (LOSSES, LwF-x)."""
    resting = (
        set() if rehearsal else {parameter for head in list(student.heads)[:-1] for parameter in head.parameters()}
    )
    for parameter in student.parameters():
        parameter.requires_grad_(parameter not in resting)
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


class _Pace:
    """Keeps the count of steps, loss and speed; looks at the loss, which makes a GPU wait, only when it reports."""

    def __init__(self, report: Report, *, epochs: int, steps: int) -> None:
        self._report = report
        self._epochs = epochs
        self._steps = steps
        self._began = time.monotonic()
        self._images = 0

    def begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._epoch_began = time.monotonic()
        self._epoch_images = 0
        self._loss_sum: Tensor | float = 0.0

    def advance(self, step: int, loss: Tensor, images: int) -> None:
        self._step = step
        self._loss_sum = self._loss_sum + loss
        self._images += images
        self._epoch_images += images
        if self._report.due():
            self._report.progress(**self._state())

    def end(self) -> None:
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
        done = (self._epoch - 1) * self._steps + self._step
        elapsed = time.monotonic() - self._began
        return {
            "epoch": self._epoch,
            "epochs": self._epochs,
            "step": self._step,
            "steps": self._steps,
            "loss": self._mean_loss(),
            "images_per_second": round(self._images / max(elapsed, 1e-9), 1),
            "eta_seconds": round(elapsed / done * (self._epochs * self._steps - done), 1),
        }
