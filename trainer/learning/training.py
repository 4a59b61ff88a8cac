"""The training loop: minibatch SGD on images that lie in memory, towards an objective of `losses`."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.learning import optimisers
from trainer.learning.checkpoint import Checkpoint, Checkpoints
from trainer.learning.compute import ComputeConfig
from trainer.learning.data import ImageSet
from trainer.learning.distillation import DistillationStep
from trainer.learning.fixed import Fixed
from trainer.learning.minibatches import Minibatches
from trainer.learning.progress import Progress
from trainer.learning.schedules import VALIDATED, Schedule, schedule_for
from trainer.learning.seeds import Seeds
from trainer.learning.state import TrainingState
from trainer.learning.validation import split_by_hash
from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.recipes import Recipe
from trainer.reporting import Report

VALIDATION_MINIBATCH = 256


def train(
    distillation: DistillationStep,
    *,
    images: ImageSet,
    transform: EvaluationTransform,
    fixed: Fixed,
    recipe: Recipe,
    seeds: Seeds,
    execution: ComputeConfig,
    report: Report,
    saved: Checkpoint | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Fit the distillation's student to ``images`` in place; what of it is ``fixed`` stays as it is to the last bit.

    Everything random comes from ``seeds``, so on one machine, CPU and execution the weights repeat to the last
    bit; also when it goes on from ``saved``, one of the ``checkpoints`` that it made in the same execution. Raises
    `LossNotFinite`.
    """
    student = distillation.student
    device = next(student.parameters()).device
    held = None
    if recipe.schedule in VALIDATED:
        images, held = split_by_hash(images, share=recipe.validation_share)
    validation = _Validation(distillation, held, transform, report) if held else None
    minibatches = Minibatches(
        images, transform=transform, recipe=recipe, seeds=seeds, rehearses=distillation.rehearses, device=device
    )
    trained = _parameters(student, fixed.modules)
    optimiser = optimisers.sgd(recipe, trained, device)
    schedule = _schedule(recipe, optimiser, student, minibatches)
    training_state = TrainingState(student, optimiser, schedule, minibatches, execution)
    begun = training_state.resume(saved) if saved is not None else 0
    progress = Progress(report, epochs=minibatches.epochs, steps=minibatches.steps, begun=begun)
    for epoch in range(begun + 1, minibatches.epochs + 1):
        _training_mode(student, fixed.modules)
        progress.begin(epoch)
        for step, (inputs, targets) in enumerate(minibatches.epoch(), start=1):
            with execution.autocast():
                loss = distillation.loss(inputs, targets).total
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            fixed.before_step()
            if recipe.gradient_clip is not None:
                nn.utils.clip_grad_norm_(trained, recipe.gradient_clip)
            optimiser.step()
            fixed.after_step()
            schedule.step()
            progress.advance(step, loss.detach(), len(targets))
        progress.end()
        ended = schedule.epoch(validation.loss() if validation else None)
        if checkpoints is not None:
            checkpoints.save(training_state.checkpoint(epoch=minibatches.epochs if ended else epoch))
        if ended:
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
    recipe: Recipe, optimiser: torch.optim.Optimizer, student: IncrementalNetwork, minibatches: Minibatches
) -> Schedule:
    return schedule_for(
        recipe.schedule,
        optimiser,
        student,
        epochs=minibatches.epochs,
        steps_per_epoch=minibatches.steps,
        warmup_epochs=recipe.warmup_epochs,
        patience=recipe.patience,
        rate_divisor=recipe.rate_divisor,
        lowest_rate=recipe.lowest_rate,
    )


@dataclass(frozen=True)
class _Validation:
    """Images held back from training, to see when it has come to a halt."""

    distillation: DistillationStep
    images: ImageSet
    transform: EvaluationTransform
    report: Report

    def loss(self) -> float:
        """The classification loss over all of them, in evaluation mode."""
        student = self.distillation.student.eval()
        device = next(student.parameters()).device
        total: Tensor | float = 0.0
        parts = self.images.minibatches(VALIDATION_MINIBATCH), torch.split(self.images.targets, VALIDATION_MINIBATCH)
        for pixels, targets in zip(*parts, strict=True):
            inputs = self.transform.normalise(pixels.to(device))
            total = total + self.distillation.classification(inputs, targets.to(device)) * len(targets)
            self.report.alive()
        return float(total) / len(self.images)
