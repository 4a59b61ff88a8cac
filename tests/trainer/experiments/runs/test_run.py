"""One run in process: what it learns from, that it goes on where it was, and that nothing is mixed."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from storage.domain import Memory
from storage.errors import Invalid
from tests.trainer.experiments.pictures import tasks_of
from trainer.experiments import results
from trainer.experiments.data import datasets, tasks
from trainer.experiments.data.tasks import Task
from trainer.experiments.plan import describe
from trainer.experiments.runs.folder import RunElsewhere
from trainer.experiments.runs.process import ORDER
from trainer.experiments.runs.run import Order, perform
from trainer.networks import load_version

DATASETS = Path(os.environ.get("ACCRETE_TEST_DATASETS", Path(__file__).parents[5] / "shared" / "datasets"))
ARCHIVES = [DATASETS / "tiny-imagenet-100-32px" / f"task-{task:02d}.zip" for task in range(2)]

TASKS = tasks_of(2, 2, 1)
TWO_A_CLASS = Memory(per_class=2)
RECIPE: dict[str, Any] = {"epochs": 2, "minibatch": 8, "learning_rate": 0.05}


def order(
    out: Path,
    strategy: str = "lwf-bsr",
    *,
    learned: tuple[Task, ...] = TASKS,
    memory: Memory | None = TWO_A_CLASS,
    **recipe: Any,
) -> Order:
    setting = describe(
        learned, network="resnet32", memory=memory, recipe=RECIPE | recipe, weights_folder=Path("absent")
    )
    return Order(setting.run(strategy, 0), out / "tasks", out, "cpu", 1, Path("absent"))


def performed(asked: Order, learned: tuple[Task, ...] = TASKS) -> list[Mapping[str, Any]]:
    """What the run said."""
    said: list[Mapping[str, Any]] = []
    perform(asked, learned, said.append)
    return said


def lines(asked: Order) -> list[dict[str, Any]]:
    """The results of a run, without what no two runs share."""
    return [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in results.read(asked.results)
        if line["run"] == asked.run.digest
    ]


def everything(asked: Order) -> list[tuple[dict[str, Any], bytes, str]]:
    """Metrics, weights and exemplars of every task."""
    found = []
    for t in range(len(TASKS)):
        folder = asked.folder.task(t)
        weights, chosen = (folder / "weights.safetensors").read_bytes(), (folder / "exemplars.json").read_text()
        found.append((asked.folder.manifest(t)["metrics"], weights, chosen))
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Order:
    """A run that nothing came in between of."""
    asked = order(tmp_path_factory.mktemp("undisturbed"))
    performed(asked)
    return asked


class Stop(Exception):
    """What ends a run in these tests."""


def stopping(where: Callable[[Mapping[str, Any]], bool]) -> Callable[[Mapping[str, Any]], None]:
    def say(message: Mapping[str, Any]) -> None:
        if where(message):
            raise Stop

    return say


def test_a_run_has_a_version_and_a_line_for_every_task(undisturbed):
    found = lines(undisturbed)
    assert [line["task"] for line in found] == [0, 1, 2]
    assert [line["classes"] for line in found] == [2, 4, 5]
    assert [line["chance"] for line in found] == [[0.5], [0.5, 0.5], [0.5, 0.5, 1.0]]
    for t, task in enumerate(TASKS):
        version = load_version(undisturbed.folder.task(t))
        assert version.tasks[-1] == task.labels
        assert version.manifest["strategy"] == "lwf-bsr"
        assert version.manifest["recipe"]["epochs"] == 2
        assert version.manifest["parent"] == (t or None)


def test_the_accuracy_on_record_is_that_of_the_version_on_disk(undisturbed):
    for t, line in enumerate(lines(undisturbed)):
        version = load_version(undisturbed.folder.task(t))
        for u, task in enumerate(TASKS[: t + 1]):
            predicted = version.probabilities_of(task.test.pixels).argmax(1)
            assert line["tag"]["accuracy"][u] == float((predicted == task.test.targets).double().mean())


def test_it_says_every_epoch_and_every_task(tmp_path):
    said = performed(order(tmp_path, "finetune"), TASKS[:2])
    epochs = [(message["task"], message["epoch"]) for message in said if message["kind"] == "epoch"]
    assert epochs == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [(message["kind"], message["task"]) for message in said if message["kind"] != "epoch"] == [
        ("task", 0),
        ("task", 1),
    ]


@pytest.mark.parametrize("t", [0, 1])
def test_stopped_after_a_task_it_goes_on_to_the_same_to_the_last_bit(undisturbed, tmp_path, t):
    asked = order(tmp_path)
    with pytest.raises(Stop):
        perform(asked, TASKS, stopping(lambda message: message["kind"] == "task" and message["task"] == t))
    assert len(lines(asked)) == t + 1
    torch.manual_seed(77)
    said = performed(asked)
    assert {message["task"] for message in said} == set(range(t + 1, 3))
    assert everything(asked) == everything(undisturbed)
    assert lines(asked) == lines(undisturbed)


def test_stopped_within_a_task_it_begins_that_task_anew(undisturbed, tmp_path):
    asked = order(tmp_path)
    with pytest.raises(Stop):
        perform(asked, TASKS, stopping(lambda message: message["task"] == 1))
    assert asked.folder.has(0)
    assert not asked.folder.has(1)
    performed(asked)
    assert everything(asked) == everything(undisturbed)


def test_what_was_half_written_when_the_process_died_is_written_anew(undisturbed, tmp_path):
    asked = order(tmp_path)
    partial = asked.folder.path / "task-00.partial"
    partial.mkdir(parents=True)
    (partial / "weights.safetensors").write_bytes(b"half")
    performed(asked)
    assert everything(asked) == everything(undisturbed)
    assert not partial.exists()


def test_lines_that_were_lost_are_written_again_without_learning_again(undisturbed):
    before = lines(undisturbed)
    undisturbed.results.unlink()
    said = performed(undisturbed)
    assert [message["kind"] for message in said] == ["task"] * 3
    assert lines(undisturbed) == before
    assert performed(undisturbed) == []


def copy_of(asked: Order, out: Path) -> Order:
    shutil.copytree(asked.out, out)
    return replace(asked, out=out)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_from_the_first_version_that_is_missing_everything_is_learned_again(undisturbed, tmp_path, missing):
    asked = copy_of(undisturbed, tmp_path / "out")
    before, expected = asked.results.read_bytes(), lines(asked)
    shutil.rmtree(asked.folder.task(missing))
    again = []

    def say(message: Mapping[str, Any]) -> None:
        again.append(message["task"])
        on_disk = [t for t in range(3) if asked.folder.has(t)]
        assert on_disk == list(range(missing if message["kind"] == "epoch" else missing + 1))
        if message["kind"] == "task":
            raise Stop

    with pytest.raises(Stop):
        perform(asked, TASKS, say)
    assert lines(asked) == expected[: missing + 1]  # and none of what was learned on top of the old one
    again += [message["task"] for message in performed(asked)]
    assert set(again) == set(range(missing, 3))
    assert everything(asked) == everything(undisturbed)
    assert lines(asked) == expected
    assert asked.results.read_bytes().startswith(before)
    assert len(asked.results.read_bytes().splitlines()) == len(before.splitlines()) + 3 - missing


def test_a_line_that_is_not_of_the_version_on_disk_is_written_anew_with_those_after_it(undisturbed, tmp_path):
    """As it stays behind where a process dies between a version that was learned again and its line."""
    asked = copy_of(undisturbed, tmp_path / "out")
    expected = lines(asked)
    stale = next(line for line in results.read(asked.results) if line["run"] == asked.run.digest and line["task"] == 1)
    results.append(asked.results, {**stale, "seconds": stale["seconds"] + 1, "classes": 77})
    said = performed(asked)
    assert [(message["kind"], message["task"]) for message in said] == [("task", 1), ("task", 2)]
    assert lines(asked) == expected
    assert performed(asked) == []


@pytest.mark.parametrize("text", ["{", "3", '{"format": 99}'])
def test_a_version_without_its_result_is_named_with_what_to_do(undisturbed, tmp_path, text):
    asked = copy_of(undisturbed, tmp_path / "out")
    (asked.folder.task(1) / "version.json").write_text(text)
    with pytest.raises(Invalid, match=r"task-01: no result can be read .*; remove this folder and start again"):
        performed(asked)


def test_another_recipe_is_another_run_in_the_same_folder(undisturbed):
    before = everything(undisturbed)
    other = order(undisturbed.out, epochs=1)
    performed(other)
    assert lines(other) != lines(undisturbed)
    assert {line["run"] for line in results.read(other.results)} == {undisturbed.run.digest, other.run.digest}
    assert everything(undisturbed) == before


def kept(asked: Order, t: int) -> dict[str, int]:
    chosen = json.loads((asked.folder.task(t) / "exemplars.json").read_text())
    return {target: len(ids) for target, ids in chosen.items()}


def test_exemplars_are_kept_and_rehearsed(undisturbed):
    assert [line["rehearsed"] for line in lines(undisturbed)] == [0, 4, 8]
    assert kept(undisturbed, 1) == dict.fromkeys("0123", 2)
    trained = {image for task in TASKS for image in task.train.ids}
    assert trained.issuperset(undisturbed.folder.exemplars(2))


def test_a_fixed_total_shrinks_the_share_of_each_class_and_keeps_the_most_wanted(tmp_path):
    asked = order(tmp_path, "finetune", memory=Memory(total=8), epochs=1)
    performed(asked, TASKS[:2])
    assert [kept(asked, t) for t in (0, 1)] == [dict.fromkeys("01", 4), dict.fromkeys("0123", 2)]
    first = asked.folder.exemplars(0)
    assert asked.folder.exemplars(1)[:4] == [*first[:2], *first[4:6]]


def test_without_memory_nothing_is_kept(tmp_path):
    asked = order(tmp_path, "lwf", memory=None, epochs=1)
    performed(asked, TASKS[:2])
    assert [line["rehearsed"] for line in lines(asked)] == [0, 0]
    assert asked.folder.exemplars(1) == []


def test_joint_learns_from_every_earlier_image_whatever_the_memory(tmp_path):
    asked = order(tmp_path, "joint", epochs=1)
    performed(asked)
    assert [line["rehearsed"] for line in lines(asked)] == [0, 12, 24]


def test_no_two_processes_work_on_one_run(undisturbed):
    with undisturbed.folder.alone(), pytest.raises(RunElsewhere):
        performed(undisturbed)
    assert performed(undisturbed) == []


def test_a_damaged_version_is_named_with_what_to_do(tmp_path):
    asked = order(tmp_path, epochs=1)
    performed(asked, TASKS[:1])
    weights = asked.folder.task(0) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(Invalid, match=r"task-00: .*damaged.*remove this folder and start again"):
        performed(asked)


def test_an_order_travels_as_text(undisturbed):
    assert ORDER.validate_json(ORDER.dump_json(undisturbed)) == undisturbed
    without = replace(undisturbed, run=replace(undisturbed.run, memory=None))
    assert ORDER.validate_json(ORDER.dump_json(without)) == without


@pytest.mark.skipif(not ARCHIVES[0].exists(), reason=f"no photographs in {DATASETS} (set ACCRETE_TEST_DATASETS)")
def test_archives_of_photographs_are_learned_task_by_task(tmp_path):
    dataset = datasets.load(
        [str(archive) for archive in ARCHIVES],
        folder=tmp_path,
        image_size=16,
        limits=datasets.Limits(classes=12, images_per_class=6),
        threads=1,
    )
    learned = tasks.divide(dataset, tasks=2, first_task_classes=None, class_order=None)
    assert [len(task.train) for task in learned] == [60, 12]
    assert [round(len(task.test), -1) for task in learned] == [500, 100]  # but for a few that the collection repeats
    for archive, task in zip(ARCHIVES, learned, strict=True):
        with zipfile.ZipFile(archive) as opened:
            assert {name.split("/")[1] for name in opened.namelist() if name.endswith(".jpg")}.issuperset(task.labels)
    asked = order(tmp_path, "lwf-s", learned=learned, epochs=1, minibatch=32)
    performed(asked, learned)
    first, second = lines(asked)
    assert len(second["taw"]["accuracy"]) == 2
    assert None not in second["taw"]["accuracy"]
    assert second["rehearsed"] == 20
    assert isinstance(load_version(asked.folder.task(1)).network.heads[0].weight, Tensor)
    assert first["classes"] == 10
