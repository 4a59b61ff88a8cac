"""The lines of results: never lost, never mixed, whatever ends a process; and the rows of the CSV file."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trainer.experiments.results import FORMS, HEADLINES, append, read, worst_task, write_csv


def line(run: str = "a", task: int = 0, **more: Any) -> dict[str, Any]:
    return {"run": run, "task": task, **more}


def full(*, accuracy: list[float | None], chance: list[float], strategy: str = "lwf", **more: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(HEADLINES, 0.5) | {"accuracy": accuracy, "forgetting": None}
    return {
        "run": "a",
        "strategy": strategy,
        "seed": 0,
        "task": 0,
        "tasks": 1,
        "classes": 2,
        "train_images": 3,
        "rehearsed": 0,
        "chance": chance,
        "imbalance": None,
        "seconds": 1.5,
        "device": "cpu",
        "threads": 1,
        "code": "accrete 0, torch 2, sources 0",
        **dict.fromkeys(FORMS, numbers),
        **more,
    }


def test_lines_come_back_run_by_run_and_task_by_task(tmp_path):
    assert read(tmp_path / "results") == []
    lines = [line("b", 0), line("a", 0), line("b", 1, other=[1, None]), line("a", 2)]
    for each in lines:
        append(tmp_path / "results", each)
    assert read(tmp_path / "results") == [lines[0], lines[2], lines[1], lines[3]]


@pytest.mark.parametrize("kept", [1, 10, -2, -1])
def test_a_line_cut_off_is_passed_over_and_spoils_no_other(tmp_path, kept):
    append(tmp_path / "results", line("a", 0))
    before = (tmp_path / "results").read_bytes()
    append(tmp_path / "results", line("a", 1, padding="x" * 50))
    whole = (tmp_path / "results").read_bytes()
    cut = before + whole[len(before) :][:kept]
    (tmp_path / "results").write_bytes(cut)
    complete = [line("a", 0)] if kept != -1 else [line("a", 0), line("a", 1, padding="x" * 50)]
    assert read(tmp_path / "results") == complete  # of the last, -1 took the end of the line only
    append(tmp_path / "results", line("a", 2))
    assert read(tmp_path / "results") == [*complete, line("a", 2)]
    assert (tmp_path / "results").read_bytes().startswith(cut)


@pytest.mark.parametrize("noise", [b"\n\n", b"null\n", b"3\n", b'{"run": "a"}\n', b'["run", "task"]\n', b"\xff\xfe\n"])
def test_what_is_no_result_is_passed_over(tmp_path, noise):
    (tmp_path / "results").write_bytes(noise)
    append(tmp_path / "results", line())
    assert read(tmp_path / "results") == [line()]


def test_of_two_lines_for_one_task_the_later_counts(tmp_path):
    append(tmp_path / "results", line(seconds=1))
    append(tmp_path / "results", line(seconds=2))
    assert read(tmp_path / "results") == [line(seconds=2)]


def test_what_was_learned_on_top_of_a_task_counts_no_more_once_that_was_learned_again(tmp_path):
    first, second, third = line(task=0), line(task=1, seconds=2), line(task=2, seconds=2)
    for each in (first, line(task=1), line(task=2), line(task=3), line("b", 3), second):
        append(tmp_path / "results", each)
    assert read(tmp_path / "results") == [first, second, line("b", 3)]
    append(tmp_path / "results", third)
    assert read(tmp_path / "results") == [first, second, third, line("b", 3)]
    assert (tmp_path / "results").read_bytes().count(b"\n") == 7


def test_many_at_once_lose_nothing_and_cut_nothing(tmp_path):
    (tmp_path / "results").write_bytes(b'{"run": "cut')
    lines = [line(f"run {number % 8}", number, padding="x" * (number * 37 % 5000)) for number in range(200)]

    def perform(run: int) -> None:
        for each in lines[run::8]:
            append(tmp_path / "results", each)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(perform, range(8)))
    assert sorted(read(tmp_path / "results"), key=lambda each: each["task"]) == lines
    assert (tmp_path / "results").read_bytes().count(b"\n") == 201


def test_what_is_no_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        append(tmp_path / "results", line(loss=float("nan")))
    assert read(tmp_path / "results") == []


@pytest.mark.parametrize(
    ("accuracy", "chance", "expected"),
    [
        ([0.9, 0.4], [0.1, 0.1], (0.4, 0.1)),
        ([0.5, 0.4], [0.5, 0.1], (0.5, 0.5)),  # no better than chance, if higher than the other
        ([1.0, 0.6], [1.0, 0.1], (0.6, 0.1)),  # a task of one class is always right
        ([0.5, None], [0.1, 0.1], None),
        ([1.0], [1.0], None),
    ],
)
def test_the_worst_task_is_the_one_least_above_its_chance(accuracy, chance, expected):
    assert worst_task([full(accuracy=accuracy, chance=chance)]) == expected


def test_the_worst_task_is_the_worst_of_all_seeds():
    lines = [full(accuracy=[0.4, 0.3], chance=[0.1, 0.1]), full(accuracy=[0.2, 0.5], chance=[0.1, 0.1])]
    assert worst_task(lines) == (0.2, 0.1)


def test_the_csv_file_has_a_row_for_each_line_and_nothing_where_nothing_was_measured(tmp_path):
    spread = {"mean_logit_on_others": 0.25, "weight_norm": 0.125, "bias": None}
    lines = [
        full(accuracy=[0.9, 0.4], chance=[0.1, 0.1], task=1, imbalance={"spread": spread}),
        full(accuracy=[0.7], chance=[0.1]),
        full(accuracy=[None], chance=[0.1], strategy="joint"),
    ]
    write_csv(tmp_path / "results.csv", lines)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["strategy"], row["task"]) for row in rows] == [("joint", "0"), ("lwf", "0"), ("lwf", "1")]
    assert [row["taw_worst_task"] for row in rows] == ["", "0.7", "0.4"]
    assert [row["tag_average_accuracy"] for row in rows] == ["0.5"] * 3
    assert [row["taw_forgetting"] for row in rows] == [""] * 3
    assert [row["spread_weight_norm"] for row in rows] == ["", "", "0.125"]
    assert rows[2]["spread_bias"] == ""
    assert json.loads(rows[0]["seconds"]) == 1.5
    assert not list(tmp_path.glob(".*"))
