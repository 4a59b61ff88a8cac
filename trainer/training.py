"""The training loop: minibatch SGD on images that lie in memory, towards an objective of `losses`."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.augmentation import Augmentation
from trainer.data import ImageSet
from trainer.lesson import Lesson
from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.pace import Pace
from trainer.recipes import Recipe
from trainer.reporting import Report
from trainer.sampling import epoch_order
from trainer.schedules import VALIDATED, Schedule, schedule_for
from trainer.validation import split_by_hash

VALIDATION_MINIBATCH = 256


def train(
    lesson: Lesson,
    *,
    images: ImageSet,
    transform: EvaluationTransform,
    fixed: Collection[nn.Module],
    recipe: Recipe,
    report: Report,
) -> None:
    """Fit the lesson's student to ``images`` in place; its modules ``fixed`` stay as they are to the last bit.

    Everything random comes from ``recipe.seed``, so on one machine, CPU and thread count the weights repeat to the
    last bit. Raises `LossNotFinite`.
    """
    student = lesson.student
    device = next(student.parameters()).device
    held = None
    if recipe.schedule in VALIDATED:
        images, held = split_by_hash(images, share=recipe.validation_share)
    pixels, targets = images.pixels.to(device), images.targets.to(device)
    validation = _Validation(lesson, held, transform) if held else None
    shuffling = torch.Generator().manual_seed(recipe.seed)
    augment = Augmentation(
        recipe.augmentation,
        image_size=transform.image_size,
        channels=transform.channels,
        generator=torch.Generator(device).manual_seed(recipe.seed),
    )
    trained = _parameters(student, fixed)
    optimiser = torch.optim.SGD(
        trained,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    # Parts of nearly one size, of two images at least: one alone leaves batch normalisation nothing to average over.
    steps = max(1, min(math.ceil(len(images) / recipe.minibatch), len(images) // 2))
    schedule = _schedule(recipe, optimiser, student, steps_per_epoch=steps)
    pace = Pace(report, epochs=recipe.epochs, steps=steps)
    for epoch in range(1, recipe.epochs + 1):
        _training_mode(student, fixed)
        pace.begin(epoch)
        order = epoch_order(recipe.sampling, images.targets, generator=shuffling).to(device)
        for step, chosen in enumerate(order.tensor_split(steps), start=1):
            loss = lesson.loss(transform.normalise(augment(pixels[chosen])), targets[chosen]).total
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.gradient_clip is not None:
                nn.utils.clip_grad_norm_(trained, recipe.gradient_clip)
            optimiser.step()
            schedule.step()
            pace.advance(step, loss.detach(), len(chosen))
        pace.end()
        if schedule.epoch(validation.loss() if validation else None):
            break
    schedule.finish()


def _parameters(student: IncrementalNetwork, fixed: Collection[nn.Module]) -> list[nn.Parameter]:
    """What is optimised: everything that is not fixed, which from now on needs no gradient."""
    student.requires_grad_(True)
    for module in fixed:
        module.requires_grad_(False)
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


def _training_mode(student: IncrementalNetwork, fixed: Collection[nn.Module]) -> None:
    """Training mode but for what is fixed, whose batch statistics stay as well."""
    student.train()
    for module in fixed:
        module.eval()


def _schedule(
    recipe: Recipe, optimiser: torch.optim.Optimizer, student: IncrementalNetwork, *, steps_per_epoch: int
) -> Schedule:
    return schedule_for(
        recipe.schedule,
        optimiser,
        student,
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=recipe.warmup_epochs,
        patience=recipe.patience,
        rate_divisor=recipe.rate_divisor,
        lowest_rate=recipe.lowest_rate,
    )


@dataclass(frozen=True)
class _Validation:
    """Images held back from training, to see when it has come to a halt."""

    lesson: Lesson
    images: ImageSet
    transform: EvaluationTransform

    def loss(self) -> float:
        """The classification loss over all of them, in evaluation mode."""
        student = self.lesson.student.eval()
        device = next(student.parameters()).device
        total: Tensor | float = 0.0
        parts = self.images.minibatches(VALIDATION_MINIBATCH), torch.split(self.images.targets, VALIDATION_MINIBATCH)
        for pixels, targets in zip(*parts, strict=True):
            inputs = self.transform.normalise(pixels.to(device))
            total = total + self.lesson.classification(inputs, targets.to(device)) * len(targets)
        return float(total) / len(self.images)
