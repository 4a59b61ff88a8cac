"""The training loop: minibatch SGD on images in memory, phase by phase, with objectives of `losses`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from trainer.learning import optimisers
from trainer.learning.checkpoint import Checkpoint, Checkpoints
from trainer.learning.compute import ComputeConfig
from trainer.learning.data import ImageSet
from trainer.learning.distillation import DistillationStep
from trainer.learning.minibatches import Minibatches, extent
from trainer.learning.phases import Phase
from trainer.learning.progress import Progress
from trainer.learning.sampling import settled
from trainer.learning.schedules import VALIDATED, Schedule, schedule_for
from trainer.learning.seeds import Seeds
from trainer.learning.state import TrainingState, weights_of
from trainer.learning.validation import split_by_hash
from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.recipes import Recipe
from trainer.reporting import Report

VALIDATION_MINIBATCH = 256


@dataclass(frozen=True)
class Training:
    """What all phases of an increment have in common."""

    student: IncrementalNetwork  # changed in place
    teacher: IncrementalNetwork | None  # as in `DistillationStep`
    old_tasks: int
    transform: EvaluationTransform
    seeds: Seeds
    execution: ComputeConfig
    report: Report


def train(
    training: Training,
    phases: Sequence[Phase],
    *,
    saved: Checkpoint | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train the student in place, phase by phase; the fixed parts of a phase stay the same to the last bit.

    All randomness comes from the seeds, so with the same machine, CPU and execution the weights repeat to the last bit.
    This also holds when training goes on from ``saved``, a checkpoint of the same phases with the same execution.
    Raises `LossNotFinite`.
    """
    divided = [_divided(phase) for phase in phases]
    extents = [extent(len(images), phase.recipe) for phase, (images, _) in zip(phases, divided, strict=True)]
    before = list(accumulate((epochs for epochs, _ in extents), initial=0))  # epochs before each phase
    progress = Progress(training.report, extents)
    begun = saved.phase if saved is not None else 0
    if saved is not None:
        training.student.load_state_dict(weights_of(saved))
    for place in range(begun, len(phases)):
        course = _PhaseRun(training, phases[place], place, *divided[place])
        first, last = before[place] + 1, before[place + 1]
        if saved is not None and place == begun:
            course.state.resume(saved)
            first = saved.epoch + 1
        for epoch in range(first, last + 1):
            ended = course.epoch(epoch, progress)
            if checkpoints is not None:
                checkpoints.save(course.state.checkpoint(epoch=last if ended else epoch, phase=place))
            if ended:
                break
        course.finish()


def _divided(phase: Phase) -> tuple[ImageSet, ImageSet | None]:
    """The training images of a phase, and its validation images; None if its schedule needs none."""
    if phase.recipe.schedule not in VALIDATED:
        return phase.images, None
    return split_by_hash(phase.images, share=phase.recipe.validation_share)


class _PhaseRun:
    """A phase under way."""

    def __init__(self, training: Training, phase: Phase, place: int, images: ImageSet, held: ImageSet | None) -> None:
        """Begin with the weights that the phases before have left; ``held`` are the validation images."""
        student = self._student = training.student
        device = next(student.parameters()).device
        self._step = DistillationStep(
            student=student,
            teacher=training.teacher if phase.objective.distils else None,
            objective=phase.objective,
            shown=phase.images.counts(sum(student.task_sizes)),
            old_tasks=training.old_tasks,
        )
        self._validation = _Validation(self._step, held, training.transform, training.report) if held else None
        self._minibatches = Minibatches(
            images,
            transform=training.transform,
            recipe=phase.recipe,
            sampling=settled(phase.sampling, rehearses=self._step.rehearses),
            seeds=training.seeds,
            phase=place,
            device=device,
        )
        self._phase = phase
        self._fixed = phase.fixed(student)
        self._trained = _parameters(student, self._fixed.modules)
        self._longest_gradient = phase.recipe.gradient_clip
        self._optimiser = optimisers.sgd(phase.recipe, self._trained, device)
        self._schedule = _schedule(phase.recipe, self._optimiser, student, self._minibatches)
        self._execution = training.execution
        self.state = TrainingState(student, self._optimiser, self._schedule, self._minibatches, training.execution)

    def epoch(self, epoch: int, progress: Progress) -> bool:
        """Train for one epoch; whether the phase ends with it."""
        _training_mode(self._student, self._fixed.modules)
        progress.begin(epoch)
        for step, (inputs, targets) in enumerate(self._minibatches.epoch(), start=1):
            with self._execution.autocast():
                loss = self._step.loss(inputs, targets).total
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._fixed.before_step()
            if self._longest_gradient is not None:
                nn.utils.clip_grad_norm_(self._trained, self._longest_gradient)
            self._optimiser.step()
            self._fixed.after_step()
            self._schedule.step()
            progress.advance(step, loss.detach(), len(targets))
        progress.end()
        return self._schedule.epoch(self._validation.loss() if self._validation else None)

    def finish(self) -> None:
        """Leave the weights that the schedule chooses, finished as the phase says."""
        self._schedule.finish()
        self._phase.finish(self._student)


def _parameters(student: IncrementalNetwork, fixed: Collection[nn.Module]) -> list[nn.Parameter]:
    """The parameters to optimise, all that are not fixed; turns gradients off for the fixed ones."""
    student.requires_grad_(True)
    for module in fixed:
        module.requires_grad_(False)
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


def _training_mode(student: IncrementalNetwork, fixed: Collection[nn.Module]) -> None:
    """Set training mode, and evaluation mode for fixed modules, so that their batch statistics do not change."""
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
    """Images held back from training, to see when it no longer improves."""

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
