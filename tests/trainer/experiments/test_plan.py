"""Runs: which there are, what is refused before the first begins, and what makes two runs the same."""

from pathlib import Path
from typing import Any

import pytest

from storage.domain import Memory
from storage.errors import Invalid, NothingToLearn, RecipeInvalid, StrategyUnfit, UnknownNetwork, UnknownStrategy
from tests.trainer.experiments.pictures import tasks_of
from trainer.experiments.data.tasks import Task
from trainer.experiments.plan import Run, Setting, code_version, describe, runs
from trainer.recipes import PRESETS


def setting(
    tasks: tuple[Task, ...] | None = None,
    *,
    network: str = "resnet32",
    memory: Memory | None = None,
    weights_folder: Path = Path("absent"),
    **recipe: Any,
) -> Setting:
    return describe(
        tasks or tasks_of(2, 2), network=network, memory=memory, recipe=recipe, weights_folder=weights_folder
    )


def planned(tasks: tuple[Task, ...], *strategies: str, **options: Any) -> list[Run]:
    return runs(setting(tasks, **options), tasks, strategies=strategies, seeds=(0,))


def test_every_strategy_has_a_run_with_every_seed_and_one_seed_is_complete_before_the_next():
    tasks = tasks_of(2, 2)
    found = runs(setting(tasks), tasks, strategies=("lwf", "finetune"), seeds=(3, 1))
    assert [(run.strategy, run.seed) for run in found] == [("lwf", 3), ("finetune", 3), ("lwf", 1), ("finetune", 1)]
    assert len({run.digest for run in found}) == len({run.name for run in found}) == 4


def test_a_run_is_the_same_whenever_it_is_planned():
    assert setting().run("lwf", 0) == setting().run("lwf", 0)


def test_a_preset_counts_by_its_values():
    assert setting(preset="quick").run("lwf", 0).digest == setting(**PRESETS["quick"]).run("lwf", 0).digest
    assert setting(preset="recommended").run("lwf", 0).digest == setting().run("lwf", 0).digest


@pytest.mark.parametrize(
    "other",
    [
        lambda: setting(tasks_of(2, 2, train=7)),
        lambda: setting(tasks_of(4)),
        lambda: setting(network="resnet18"),
        lambda: setting(memory=Memory(per_class=2)),
        lambda: setting(memory=Memory(total=2)),
        lambda: setting(epochs=3),
        lambda: setting(temperature=3.0),
    ],
)
def test_whatever_can_change_the_outcome_makes_another_run(other):
    assert other().run("lwf", 0).digest != setting().run("lwf", 0).digest
    assert setting().run("lwf", 1).digest != setting().run("lwf", 0).digest != setting().run("lwf-s", 0).digest


def test_initial_weights_count_by_their_content(tmp_path):
    def digest(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return setting(initial_weights=name, weights_folder=tmp_path).run("lwf", 0).digest

    assert digest("a.safetensors", b"one") == digest("a.safetensors", b"one") != digest("a.safetensors", b"two")
    with pytest.raises(Invalid, match=r"'b\.safetensors' cannot be read from --weights-folder"):
        setting(initial_weights="b.safetensors", weights_folder=tmp_path)


def test_an_unknown_strategy_is_answered_with_the_known_ones():
    with pytest.raises(UnknownStrategy, match="no strategy 'lwg'; known are finetune,"):
        planned(tasks_of(2, 2), "finetune", "lwg")


def test_a_recipe_brings_no_seed():
    with pytest.raises(Invalid, match="seeds are given by --seeds"):
        setting(seed=3)


def test_a_recipe_is_checked_for_every_strategy():
    with pytest.raises(RecipeInvalid, match="align_weights"):
        planned(tasks_of(2, 2), "finetune", "lucir", align_weights=True)


def test_a_network_that_a_strategy_cannot_use_is_refused_with_the_reason():
    tasks = tasks_of(2, 2)
    assert planned(tasks, "lwf", network="shufflenet_v2_x0_5")
    with pytest.raises(StrategyUnfit, match="shufflenet_v2_x0_5"):
        planned(tasks, "lwf", "lucir", network="shufflenet_v2_x0_5")


@pytest.mark.parametrize("strategy", ["finetune", "lwf", "lucir", "lwm"])
def test_an_unknown_network_is_refused_whatever_the_strategy(strategy):
    with pytest.raises(UnknownNetwork, match=r"no network 'resnet99' \(similar: .*known are resnet32,"):
        planned(tasks_of(2, 2), strategy, network="resnet99")


def test_a_network_that_cannot_take_such_images_is_refused():
    with pytest.raises(UnknownNetwork, match="alexnet"):
        planned(tasks_of(2, 2), "lwf", network="alexnet")


def test_a_task_of_one_class_needs_rehearsal_as_in_the_service():
    tasks = tasks_of(2, 1)
    with pytest.raises(NothingToLearn, match="'class 02' alone"):
        planned(tasks, "lwf")
    with pytest.raises(NothingToLearn, match="'class 02' alone"):
        planned(tasks, "lwf", memory=Memory(total=1))  # a share of none for each of two
    assert planned(tasks, "lwf", memory=Memory(per_class=1))
    assert planned(tasks, "joint")
    with pytest.raises(NothingToLearn, match="'class 00' alone"):
        planned(tasks_of(1, 2), "joint")


def test_the_code_is_named_by_releases_and_sources():
    accrete, torch, sources = code_version().split(", ")
    assert accrete.startswith("accrete ")
    assert torch.startswith("torch 2.")
    assert sources.startswith("sources ")
