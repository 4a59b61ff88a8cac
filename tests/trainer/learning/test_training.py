"""The training loop: what its optimiser sees, what it reports, and that its chance is the seed's."""

import copy
import io
import json
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from losses import objective
from trainer.learning.checkpoint import Checkpoint, Checkpoints
from trainer.learning.compute import choose
from trainer.learning.data import ImageSet, channel_statistics
from trainer.learning.fixed import Fixed
from trainer.learning.phases import Phase
from trainer.learning.seeds import Seeds
from trainer.learning.training import Training, train
from trainer.learning.validation import split_by_hash
from trainer.networks import EvaluationTransform, IncrementalNetwork, build
from trainer.process.lines import LineReport
from trainer.recipes import Precision, Recipe, resolve
from trainer.reporting import LossNotFinite, Report, SilentReport

SIZE = 8
PLAIN: dict[str, Any] = {"epochs": 2, "minibatch": 4, "learning_rate": 0.05, "augmentation": "none"}


class Recorder:
    """A report that wants to know everything and keeps it."""

    def __init__(self) -> None:
        self.progressed: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []

    def progress(self, **state: Any) -> None:
        self.progressed.append(state)

    def due(self) -> bool:
        return True

    def alive(self) -> None:
        pass

    def opaque(self) -> AbstractContextManager[None]:
        return nullcontext()

    def epoch(self, **done: Any) -> None:
        self.epochs.append(done)


def images_of(count: int, *, classes: int = 2, size: int = SIZE) -> ImageSet:
    """Images of noise around a level of their class's own; each differs from all others."""
    generator = torch.Generator().manual_seed(count)
    targets = torch.arange(count) % classes
    levels = (40 + 150 * targets // classes).view(-1, 1, 1, 1)
    pixels = levels + torch.randint(0, 60, (count, 3, size, size), generator=generator)
    return ImageSet(pixels.to(torch.uint8), targets, tuple(f"image {number}" for number in range(count)))


def network(*task_sizes: int, size: int = SIZE, seed: int = 0) -> IncrementalNetwork:
    torch.manual_seed(seed)
    made = build("resnet32", channels=3, image_size=size)
    for classes in task_sizes or (2,):
        made.add_task(classes)
    return made


def transform_of(images: ImageSet) -> EvaluationTransform:
    mean, std = channel_statistics(images)
    return EvaluationTransform(images.pixels.shape[-1], 3, mean=mean, std=std)


def trained(
    images: ImageSet,
    *,
    student: IncrementalNetwork | None = None,
    report: Report | None = None,
    fixed: Collection[nn.Module] = (),
    precision: Precision = "float32",
    checkpoints: Checkpoints | None = None,
    t: int = 0,
    **recipe: Any,
) -> IncrementalNetwork:
    student = student or network(size=images.pixels.shape[-1])
    chosen = resolve("finetune", PLAIN, recipe)
    training = Training(
        student=student,
        teacher=None,
        old_tasks=len(student.task_sizes) - 1,
        transform=transform_of(images),
        seeds=Seeds(recipe.get("seed", 0), t),
        execution=choose(torch.device("cpu"), precision),
        report=report or SilentReport(),
    )
    phase = Phase(
        fixed=lambda _: Fixed(tuple(fixed)),
        images=images,
        sampling=chosen.sampling,
        objective=objective("finetune"),
        recipe=chosen,
    )
    train(training, [phase], checkpoints=checkpoints)
    return student


@contextmanager
def watched_steps(look: Callable[[torch.optim.Optimizer], Any]) -> Iterator[list[Any]]:
    """What every step of any optimiser finds, just before it is taken."""
    seen: list[Any] = []
    handle = register_optimizer_step_pre_hook(lambda optimiser, _args, _keywords: seen.append(look(optimiser)))
    try:
        yield seen
    finally:
        handle.remove()


def rate_and_momentum(optimiser: torch.optim.Optimizer) -> tuple[float, float]:
    (group,) = optimiser.param_groups
    return float(group["lr"]), float(group["momentum"])


@contextmanager
def watched_minibatches(student: IncrementalNetwork) -> Iterator[list[Tensor]]:
    """The input of every forward pass."""
    seen: list[Tensor] = []
    handle = student.backbone.register_forward_pre_hook(lambda _backbone, inputs: seen.append(inputs[0].clone()))
    try:
        yield seen
    finally:
        handle.remove()


def positions(shown: Tensor, images: Tensor) -> list[int]:
    """Which of the images, all different, each of those shown is."""
    equal = (shown[:, None] == images[None]).flatten(2).all(2)  # [shown, images]
    assert equal.sum(1).tolist() == [1] * len(shown)
    return equal.int().argmax(1).tolist()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.02, 0.04, 0.04, 0.04, 0.04, 0.04]),
        ("cosine", [0.02, 0.04, 0.04, 0.02 + 0.02 * math.sqrt(0.5), 0.02, 0.02 - 0.02 * math.sqrt(0.5)]),
    ],
)
def test_the_schedule_moves_the_rate_at_every_step_and_leaves_momentum_alone(schedule, expected):
    recipe = {"schedule": schedule, "epochs": 3, "warmup_epochs": 1, "learning_rate": 0.04, "momentum": 0.8}
    with watched_steps(rate_and_momentum) as seen:
        trained(images_of(8), **recipe)
    assert [rate for rate, _ in seen] == pytest.approx(expected)
    assert {momentum for _, momentum in seen} == {0.8}


def gradient_norm(optimiser: torch.optim.Optimizer) -> float:
    (group,) = optimiser.param_groups
    return float(torch.cat([parameter.grad.flatten() for parameter in group["params"]]).norm())


def test_the_gradient_is_never_longer_than_the_recipe_permits():
    with watched_steps(gradient_norm) as free:
        trained(images_of(8), gradient_clip=None, epochs=1)
    with watched_steps(gradient_norm) as clipped:
        trained(images_of(8), gradient_clip=0.01, epochs=1)
    assert min(free) > 0.02
    assert clipped == pytest.approx([0.01, 0.01], rel=1e-3)


# Each step makes the weights nine times as large, so they leave float32 after some forty.
DIVERGING: dict[str, Any] = {
    "epochs": 200,
    "learning_rate": 10.0,
    "weight_decay": 1.0,
    "momentum": 0.0,
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "gradient_clip": None,
}


def diverging(report: Report) -> LossNotFinite:
    with pytest.raises(LossNotFinite) as failed:
        trained(images_of(8), report=report, **DIVERGING)
    return failed.value


def test_a_loss_that_is_not_finite_ends_the_training_and_names_epoch_and_fields():
    report = Recorder()
    said = str(diverging(report))
    assert len(report.epochs) >= 2  # so that the epoch named is not just the first
    assert f"in epoch {len(report.epochs) + 1}:" in said
    assert "learning_rate" in said
    assert "gradient_clip" in said
    assert all(math.isfinite(state["loss"]) for state in report.progressed)


def test_it_ends_at_the_epoch_s_end_also_where_nobody_listens():
    reported = Recorder()
    diverging(reported)
    assert f"in epoch {len(reported.epochs) + 1}:" in str(diverging(SilentReport()))


def weights(student: IncrementalNetwork) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in student.state_dict().values()])


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_the_seed_decides_and_nothing_else(augmentation):
    start = network()

    def outcome(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        student = copy.deepcopy(start)
        return weights(trained(images_of(12), student=student, seed=seed, augmentation=augmentation))

    first = outcome(seed=1, global_seed=1)
    assert torch.equal(outcome(seed=1, global_seed=2), first)
    assert not torch.equal(outcome(seed=2, global_seed=1), first)


def test_images_come_in_another_order_at_each_increment_of_a_line():
    images = images_of(12)

    def order(t: int) -> list[int]:
        student = network()
        with watched_minibatches(student) as shown:
            trained(images, student=student, epochs=1, t=t)
        return positions(torch.cat(shown), transform_of(images).normalise(images.pixels))

    orders = [order(t) for t in range(3)]
    assert [sorted(each) for each in orders] == [list(range(12))] * 3
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert order(1) == orders[1]


def test_listening_to_the_training_does_not_change_it():
    start = network()
    quiet = trained(images_of(12), student=copy.deepcopy(start))
    heard = trained(images_of(12), student=copy.deepcopy(start), report=Recorder())
    assert torch.equal(weights(quiet), weights(heard))


@pytest.mark.parametrize(("count", "minibatch"), [(12, 4), (11, 4), (7, 3), (5, 64)])
def test_every_image_is_seen_once_an_epoch_in_an_order_of_the_epoch_s_own(count, minibatch):
    images = images_of(count)
    normalised = transform_of(images).normalise(images.pixels)
    student = network()
    with watched_minibatches(student) as seen:
        trained(images, student=student, epochs=3, minibatch=minibatch)
    assert all(len(minibatch_) <= minibatch for minibatch_ in seen)
    steps = len(seen) // 3
    orders = []
    for epoch in range(3):
        shown = torch.cat(seen[epoch * steps : (epoch + 1) * steps])
        orders.append(positions(shown, normalised))
        assert sorted(orders[-1]) == list(range(count))
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("count", [3, 5, 9])
def test_an_odd_number_of_images_leaves_none_alone_in_a_minibatch_of_two(count):
    # At four pixels the last maps are 1 × 1: batch normalisation refuses a single image there.
    images, student = images_of(count, size=4), network(size=4)
    with watched_minibatches(student) as seen:
        trained(images, student=student, minibatch=2, epochs=1)
    assert sum(map(len, seen)) == count
    assert {len(minibatch) for minibatch in seen} <= {2, 3}


def test_a_trained_network_knows_its_images_and_has_left_them_as_they_were():
    images = images_of(16)
    before = images.pixels.clone()
    student = trained(images, epochs=10, minibatch=8).eval()
    with torch.inference_mode():
        logits = student(transform_of(images).normalise(images.pixels))
    assert torch.equal(logits.argmax(1), images.targets)
    assert torch.equal(images.pixels, before)


def test_what_is_fixed_stays_to_the_last_bit_even_under_weight_decay_and_the_rest_moves():
    images = images_of(8, classes=2)
    shifted = ImageSet(images.pixels, images.targets + 2, images.ids)  # the new task's
    start = network(2, 2)
    for part in ("heads.0", "backbone"):
        for fix in (False, True):
            student = copy.deepcopy(start)
            fixed = (student.get_submodule(part),) if fix else ()
            trained(shifted, student=student, fixed=fixed, weight_decay=0.5)
            for name, before in start.get_submodule(part).state_dict().items():  # running statistics are among them
                assert torch.equal(student.get_submodule(part).state_dict()[name], before) is fix, name
            assert isinstance(student.heads[1], nn.Linear)
            assert isinstance(start.heads[1], nn.Linear)
            assert not torch.equal(student.heads[1].weight, start.heads[1].weight)


def test_class_balanced_sampling_shows_a_class_of_few_images_as_often_as_one_of_many():
    few = images_of(20, classes=2)
    chosen = torch.cat([(few.targets == 0).nonzero().flatten(), (few.targets == 1).nonzero().flatten()[:2]])
    images = few.select(chosen)  # ten and two
    normalised = transform_of(images).normalise(images.pixels)
    for sampling, shown_of_second in (("uniform", 2), ("class-balanced", 6)):
        student = network()
        with watched_minibatches(student) as seen:
            trained(images, student=student, epochs=1, sampling=sampling)
        shown = positions(torch.cat(seen), normalised)
        assert len(shown) == 12
        assert int((images.targets[shown] == 1).sum()) == shown_of_second


def test_old_images_are_shown_as_often_as_new_ones_by_default_and_new_ones_alone_each_once():
    many = images_of(20, classes=2)
    chosen = torch.cat([(many.targets == 0).nonzero().flatten()[:2], (many.targets == 1).nonzero().flatten()])
    images = many.select(chosen)  # two and ten
    normalised = transform_of(images).normalise(images.pixels)
    for task_sizes, shown_of_first in (((1, 1), 6), ((2,), 2)):
        student = network(*task_sizes)
        with watched_minibatches(student) as seen:
            trained(images, student=student, epochs=1)
        shown = positions(torch.cat(seen), normalised)
        assert int((images.targets[shown] == 0).sum()) == shown_of_first


def test_few_images_are_shown_until_the_least_number_of_steps_is_reached():
    report = Recorder()
    with watched_steps(lambda optimiser: optimiser.param_groups[0]["lr"]) as rates:
        trained(images_of(8), report=report, epochs=3, least_steps=7, schedule="cosine", warmup_epochs=0.0)
    assert [done["epoch"] for done in report.epochs] == [1, 2, 3, 4]  # of two steps each
    assert {done["epochs"] for done in report.epochs} == {4}
    assert {state["epochs"] for state in report.progressed} == {4}
    assert len(rates) == 8
    assert rates[3] > rates[-1] > 0  # the schedule is as long as the training
    enough = Recorder()
    trained(images_of(8), report=enough, epochs=3, least_steps=6)
    assert len(enough.epochs) == 3


def test_a_plateau_ends_training_early_on_images_it_never_trained_on():
    images, report, student = images_of(40), Recorder(), network()
    recipe: dict[str, Any] = {"schedule": "plateau", "patience": 1, "lowest_rate": 0.02, "validation_share": 0.2}
    with watched_minibatches(student) as seen:
        trained(images, student=student, report=report, epochs=50, **recipe)
    assert len(report.epochs) < 50  # 0.05 / 3 is below the lowest rate: one wait is one too many
    normalised = transform_of(images).normalise(images.pixels)
    training, held = split_by_hash(images, share=0.2)
    by_epoch = len(seen) // len(report.epochs)
    shown = [
        positions(torch.cat(minibatches), normalised)
        for minibatches in (seen[: by_epoch - 1], seen[by_epoch - 1 : by_epoch])
    ]
    assert {images.ids[place] for place in shown[0]} == set(training.ids)
    assert [images.ids[place] for place in shown[1]] == list(held.ids)


class Kept:
    """Checkpoints in memory, each with the weights as they were when it was made."""

    def __init__(self) -> None:
        self.made: list[Checkpoint] = []

    def load(self) -> Checkpoint | None:
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        self.made.append(copy.deepcopy(checkpoint))


def classification_loss(student: IncrementalNetwork, images: ImageSet, transform: EvaluationTransform) -> float:
    with torch.inference_mode():
        logits = student.eval()(transform.normalise(images.pixels))
    return float(nn.functional.cross_entropy(logits, images.targets))


def unlearnable(count: int) -> ImageSet:
    """Noise whose classes were drawn: what is learned of it helps with nothing else."""
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 2, (count,), generator=generator)
    return ImageSet(pixels, targets, tuple(f"image {number}" for number in range(count)))


def test_a_plateau_that_runs_out_of_epochs_ends_with_the_best_weights():
    images, kept, student = unlearnable(60), Kept(), network()
    recipe: dict[str, Any] = {"schedule": "plateau", "patience": 100, "validation_share": 0.5, "epochs": 6}
    trained(images, student=student, checkpoints=kept, learning_rate=0.1, **recipe)
    _, held = split_by_hash(images, share=0.5)
    transform = transform_of(images)
    losses = []
    for checkpoint in kept.made:
        at_epoch = copy.deepcopy(student)
        at_epoch.load_state_dict(
            {name[8:]: tensor for name, tensor in checkpoint.tensors.items() if name.startswith("student.")}
        )
        losses.append(classification_loss(at_epoch, held, transform))
    assert len(losses) == 6
    assert min(losses) < losses[-1] * 0.99  # so that the last weights are not the best
    assert classification_loss(student, held, transform) == pytest.approx(min(losses), rel=1e-4)


def test_a_validation_loss_is_the_mean_over_images_however_they_fall_into_minibatches():
    images, kept, student = unlearnable(540), Kept(), network()  # some 270 are held back: 256 and a few
    recipe: dict[str, Any] = {"schedule": "plateau", "validation_share": 0.5, "epochs": 1, "minibatch": 64}
    trained(images, student=student, checkpoints=kept, **recipe)
    _, held = split_by_hash(images, share=0.5)
    assert 256 < len(held) < 384
    expected = classification_loss(student, held, transform_of(images))
    (checkpoint,) = kept.made
    assert checkpoint.state["schedule"]["lowest_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_every_convolution_of_a_training_computes_in_the_precision_of_the_recipe(precision, dtype):
    student, seen = network(), set[torch.dtype]()
    for module in student.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    trained(images_of(8), student=student, precision=precision, epochs=1)
    assert seen == {dtype}
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


def test_every_step_and_epoch_is_reported_and_the_loss_falls():
    report = Recorder()
    trained(images_of(10), report=report, epochs=4, minibatch=4)  # three steps
    seen = [(state["epoch"], state["step"]) for state in report.progressed]
    assert seen == sorted(seen)
    assert set(seen) == {(epoch, step) for epoch in range(1, 5) for step in range(1, 4)}
    for state in report.progressed:
        assert (state["epochs"], state["steps"]) == (4, 3)
        assert state["images_per_second"] > 0
        assert state["eta_seconds"] >= 0
    assert report.progressed[-1]["eta_seconds"] == 0
    assert [done["epoch"] for done in report.epochs] == [1, 2, 3, 4]
    assert {done["epochs"] for done in report.epochs} == {4}
    assert all(done["seconds"] > 0 and done["images_per_second"] > 0 for done in report.epochs)
    assert report.epochs[-1]["loss"] < report.epochs[0]["loss"]


def test_an_epoch_s_loss_is_the_mean_over_its_steps():
    images, start = images_of(12), network()
    normalised = transform_of(images).normalise(images.pixels)
    student, report = copy.deepcopy(start), Recorder()
    with watched_minibatches(student) as seen:
        trained(images, student=student, report=report, epochs=1, minibatch=4, learning_rate=1e-9)  # as good as at rest
    losses = [
        nn.functional.cross_entropy(start.train()(shown), images.targets[positions(shown, normalised)]).detach()
        for shown in seen
    ]
    assert len(losses) == 3
    assert report.epochs[0]["loss"] == pytest.approx(float(sum(losses)) / 3, rel=1e-4)


def test_lines_for_the_worker_hold_every_epoch_and_some_progress():
    stream = io.StringIO()
    trained(images_of(8), report=LineReport(stream), epochs=3)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2, 3]
    assert lines[0]["kind"] == "progress"
    assert lines[0].items() >= {"epoch": 1, "step": 1, "steps": 2, "epochs": 3}.items()


def test_the_recipe_s_decay_reaches_the_optimiser():
    def decay(optimiser: torch.optim.Optimizer) -> float:
        return float(optimiser.param_groups[0]["weight_decay"])

    with watched_steps(decay) as seen:
        trained(images_of(4), weight_decay=0.0125, epochs=1)
    assert set(seen) == {0.0125}
    assert Recipe().weight_decay != 0.0125
