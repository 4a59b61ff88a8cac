"""The table: what stands in each cell, with numbers one can compute by hand."""

from typing import Any

import pytest

from trainer.experiments.report.tables import percent, write_table
from trainer.experiments.results import FORMS, HEADLINES, Record


def run_of(strategy: str, *, seed: int = 0, tasks: int = 2, done: int | None = None, **last: Any) -> list[Record]:
    """The lines of a run; ``last`` are the headlines of its last task, in both forms."""
    numbers = dict.fromkeys(HEADLINES, 0.0) | {"accuracy": [0.75, 0.5]}
    lines: list[Record] = []
    for task in range(tasks if done is None else done):
        chosen = numbers | (last if task == tasks - 1 else {})
        lines.append(
            {
                "run": f"{strategy} {seed}",
                "strategy": strategy,
                "seed": seed,
                "task": task,
                "tasks": tasks,
                "chance": [0.25, 0.25],
                "seconds": 30.0 + task,
                **dict.fromkeys(FORMS, chosen),
            }
        )
    return lines


def rows(tmp_path: Any, *lines: Record) -> dict[str, list[str]]:
    write_table(tmp_path / "results.md", lines, described=[("data", "a|b")], plots=["accuracy.png"])
    cells = [line.strip("|").split(" | ") for line in (tmp_path / "results.md").read_text().splitlines() if "|" in line]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.378], "37.8"),
        ([0.3, 0.4], "35.0 ± 7.1"),  # √(((−5)² + 5²) / 1)
        ([0.1, 0.2, 0.3], "20.0 ± 10.0"),
        ([-0.012], "-1.2"),
        ([0.3, None], "–"),
        ([None], "–"),
        ([], "–"),
    ],
)
def test_percent_is_mean_and_sample_deviation(values, expected):
    assert percent(values) == expected


def test_a_strategy_is_a_row_of_its_last_task_over_all_seeds(tmp_path):
    found = rows(
        tmp_path,
        *run_of("lwf", seed=0, average_accuracy=0.3, forgetting=None, triangle_accuracy=0.5, triangle_forgetting=0.1),
        *run_of("lwf", seed=1, average_accuracy=0.4, forgetting=0.2, triangle_accuracy=0.5, triangle_forgetting=0.1),
    )
    form = ["35.0 ± 7.1", "–", "50.0 ± 0.0", "10.0 ± 0.0"]
    assert found["lwf"] == ["2", *form, *form, "50.0 (25.0)", "61"]
    assert len(found["strategy"]) == len(found["lwf"])


def test_one_seed_has_no_deviation(tmp_path):
    assert rows(tmp_path, *run_of("lwf", average_accuracy=0.3))["lwf"][:2] == ["1", "30.0"]


def test_strategies_stand_in_the_order_of_the_losses_whatever_came_first(tmp_path):
    found = rows(tmp_path, *run_of("lucir"), *run_of("lwf-s"), *run_of("joint"), *run_of("lwf"))
    assert [name for name in found if name in {"lucir", "lwf-s", "joint", "lwf"}] == ["joint", "lwf", "lwf-s", "lucir"]


def test_what_is_not_finished_is_named_and_not_counted(tmp_path):
    found = rows(tmp_path, *run_of("lwf", seed=0), *run_of("lwf", seed=3, done=1), *run_of("joint", done=1, tasks=3))
    assert found["lwf"][0] == "1"
    assert "joint" not in found
    text = (tmp_path / "results.md").read_text()
    assert "Not finished and not in the table: joint seed 0, 1 of 3 tasks; lwf seed 3, 1 of 2 tasks." in text


def test_the_page_says_what_was_learned_from_and_shows_the_plots(tmp_path):
    rows(tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| data | a\\|b |" in text
    assert "No run is finished yet." in text
    assert "![accuracy](accuracy.png)" in text
