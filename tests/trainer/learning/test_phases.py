"""Phases of one increment: each fixes, shows and minimises its own, and a training goes on in the phase it was in."""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import objective
from losses.strategies import get
from tests.trainer.learning.test_state import Folder, Killed, assert_same
from tests.trainer.learning.test_training import Recorder, images_of, network, transform_of
from trainer.learning import progress
from trainer.learning.alignment import align_weights
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.compute import choose
from trainer.learning.data import ImageSet
from trainer.learning.fixed import Fixed
from trainer.learning.phases import Phase, phases_of, unchanged
from trainer.learning.seeds import Seeds
from trainer.learning.training import Training, train
from trainer.networks import IncrementalNetwork
from trainer.recipes import resolve
from trainer.reporting import Report, SilentReport

RECIPE: dict[str, Any] = {"minibatch": 8, "learning_rate": 0.02, "schedule": "one-cycle", "precision": "float32"}
WHOLE, HEADS = 3, 2  # epochs of each phase
STRATEGY = "lwf-bsr"


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Old classes 0 and 1, of which there are few images, and new ones 2 and 3."""
    every = images_of(40, classes=4)
    rare = [target < 2 and place >= 16 for place, target in enumerate(every.targets.tolist())]
    return every.select((~torch.tensor(rare)).nonzero().flatten())


def balanced(images: ImageSet) -> ImageSet:
    """As many of each class as there are of the rarest."""
    least = int(images.targets.bincount().min())
    chosen = [(images.targets == target).nonzero().flatten()[:least] for target in range(4)]
    return images.select(torch.cat(chosen))


def both(images: ImageSet, **first: Any) -> list[Phase]:
    """The whole network on everything, beside its teacher; then its heads alone, by labels, on balanced images."""
    recipe = resolve(STRATEGY, RECIPE, {"epochs": WHOLE}, first)
    (whole,) = phases_of(get(STRATEGY), recipe, images=images, task_sizes=(2, 2), old_tasks=1)
    heads = Phase(
        fixed=lambda network: Fixed((network.backbone,)),
        images=balanced(images),
        sampling="uniform",
        objective=objective("finetune"),
        recipe=resolve("finetune", RECIPE, {"epochs": HEADS, "schedule": "constant", "learning_rate": 0.05}),
    )
    return [whole, heads]


def trained(
    phases: list[Phase], images: ImageSet, checkpoints: Folder | None = None, report: Report | None = None
) -> IncrementalNetwork:
    teacher = network(2, seed=1).eval()
    student = network(2, 2, seed=2)
    saved = checkpoints.load() if checkpoints is not None else None
    training = Training(
        student=student,
        teacher=teacher,
        old_tasks=1,
        transform=transform_of(images),
        seeds=Seeds(0, 1),
        execution=choose(torch.device("cpu"), "float32"),
        report=report or SilentReport(),
    )
    train(training, phases, saved=saved, checkpoints=checkpoints)
    return student


def backbone(student: IncrementalNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in student.backbone.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed(images: ImageSet) -> dict[str, Tensor]:
    """Weights after both phases in one go."""
    return trained(both(images), images).state_dict()


def test_a_phase_begins_where_the_one_before_has_ended_and_moves_what_it_does_not_fix(images, undisturbed):
    alone = trained(both(images)[:1], images)
    after = {name.removeprefix("backbone."): t for name, t in undisturbed.items() if name.startswith("backbone.")}
    assert_same(after, backbone(alone))
    for name, tensor in alone.heads.state_dict().items():
        assert not torch.equal(undisturbed[f"heads.{name}"], tensor)


@pytest.mark.parametrize(
    "killed_after",
    [(1,), (WHOLE - 1,), (WHOLE,), (WHOLE + 1,), (WHOLE + HEADS,), (2, 2), (1, WHOLE)],
    ids=str,
)
def test_killed_after_any_epoch_of_any_phase_it_comes_to_the_same_weights(tmp_path, images, undisturbed, killed_after):
    for last in killed_after:
        torch.manual_seed(torch.initial_seed() + 1)  # nothing may come from what a process happens to have drawn before
        with pytest.raises(Killed):
            trained(both(images), images, Folder(tmp_path / "c", last=last))
    rest = Folder(tmp_path / "c")
    assert_same(trained(both(images), images, rest).state_dict(), undisturbed)
    assert rest.saved == list(range(sum(killed_after) + 1, WHOLE + HEADS + 1))


def test_a_phase_that_ends_early_leaves_its_best_weights_to_the_next_also_when_it_is_killed_there(tmp_path, images):
    early: dict[str, Any] = {
        "schedule": "plateau",
        "epochs": 30,
        "patience": 1,
        "validation_share": 0.4,
        "rate_divisor": 500.0,
    }
    watched = Folder(tmp_path / "whole")
    expected = trained(both(images, **early), images, watched)
    ended = watched.saved.index(30) + 1  # checkpoints of the first phase
    assert ended < 30
    assert watched.saved[ended:] == [31, 32]
    with pytest.raises(Killed):
        trained(both(images, **early), images, Folder(tmp_path / "c", last=ended))
    assert_same(trained(both(images, **early), images, Folder(tmp_path / "c")).state_dict(), expected.state_dict())


def test_a_checkpoint_names_the_phase_it_is_in_and_one_that_names_none_is_of_the_first(tmp_path, images):
    phases = []

    class Noted(Folder):
        def save(self, checkpoint: Checkpoint) -> None:
            super().save(checkpoint)
            phases.append(checkpoint.phase)

    trained(both(images), images, Noted(tmp_path / "c"))
    assert phases == [0] * WHOLE + [1] * HEADS
    assert Checkpoint({}, {"epoch": 3, "execution": {}}).phase == 0


def test_epochs_are_counted_over_all_phases(images, monkeypatch):
    seconds = itertools.count()  # a step takes a second at least, however fast the machine is: times are rounded
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    report = Recorder()
    trained(both(images), images, report=report)
    assert [(done["epoch"], done["epochs"]) for done in report.epochs] == [(n, 5) for n in range(1, 6)]
    steps = {(state["epoch"] <= WHOLE, state["steps"]) for state in report.progressed}
    assert steps == {(True, 4), (False, 2)}
    assert report.progressed[-1]["eta_seconds"] == 0
    assert all(state["eta_seconds"] > 0 for state in report.progressed[:-2])


def test_every_phase_draws_its_own_random_numbers():
    seeds = Seeds(3, 2)
    assert seeds.of("order", phase=0) == seeds.of("order")  # what a phase alone always had
    assert len({seeds.of("order", phase=phase) for phase in range(4)}) == 4


def test_a_phase_counts_the_images_that_it_shows(images):
    whole, heads = both(images)
    assert whole.images.counts(4) == tuple(images.targets.bincount().tolist())
    assert heads.images.counts(5) == (heads.images.counts(4)[0],) * 4 + (0,)


def test_rows_that_a_later_phase_fixes_stay_as_the_phase_before_has_left_them(images):
    """Of new classes alone: the rows of the old ones stay, whatever they were when the list was made."""
    whole, heads = both(images)
    new = images.select((images.targets >= 2).nonzero().flatten())
    later = phases_of(get("finetune"), heads.recipe, images=new, task_sizes=(2, 2), old_tasks=1)[0]
    first = trained([whole], images).heads[0].state_dict()
    assert_same(trained([whole, replace(later, recipe=heads.recipe)], images).heads[0].state_dict(), first)


@pytest.fixture(scope="module")
def aligned(images: ImageSet) -> list[Phase]:
    """Both phases, the heads aligned between them, so that the second goes on from rows of equal length."""
    whole, heads = both(images)
    return [replace(whole, finish=align_weights), heads]


def test_alignment_ends_a_phase_before_the_next_begins(images, aligned, undisturbed):
    lengths = trained(aligned[:1], images).row_norms()  # of classes 0 and 1, then 2 and 3
    assert torch.isclose(lengths[:2].mean(), lengths[2:].mean())
    other = trained(aligned, images).state_dict()
    assert not torch.equal(other["heads.1.weight"], undisturbed["heads.1.weight"])


@pytest.mark.parametrize("killed_after", [(WHOLE,), (WHOLE + 1,), (WHOLE + HEADS,)], ids=str)
def test_killed_before_or_after_an_alignment_it_is_aligned_once(tmp_path, images, aligned, killed_after):
    expected = trained(aligned, images).state_dict()
    for last in killed_after:
        with pytest.raises(Killed):
            trained(aligned, images, Folder(tmp_path / "c", last=last))
    assert_same(trained(aligned, images, Folder(tmp_path / "c")).state_dict(), expected)


@pytest.mark.parametrize(("align", "sizes", "finish"), [
    (True, (2, 2), align_weights), (True, (4,), unchanged), (False, (2, 2), unchanged)
])  # fmt: skip
def test_a_recipe_that_aligns_does_so_where_a_head_is_new(images, align, sizes, finish):
    recipe = resolve("lwf", {"align_weights": align})
    assert phases_of(get("lwf"), recipe, images=images, task_sizes=sizes, old_tasks=1)[0].finish is finish


def test_an_increment_of_today_is_one_phase(images, tmp_path: Path):
    assert len(phases_of(get("lwm"), resolve("lwm"), images=images, task_sizes=(2, 2), old_tasks=1)) == 1
