"""The results as a table for people: one row a strategy, mean ± standard deviation over seeds."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from losses import strategies
from trainer.experiments.results import FORMS, Record, replace, worst_task

FORM_TITLES = {"tag": "TAg", "taw": "TAw"}
_COLUMNS = {
    "average_accuracy": "accuracy",
    "forgetting": "forgetting",
    "triangle_accuracy": "△ accuracy",
    "triangle_forgetting": "△ forgetting",
}
NONE = "–"
_LEGEND = """\
All in %, after the last task; mean ± sample standard deviation over seeds. TAg: best of all classes; TAw: best within
the true task's classes. Accuracy is the mean over tasks, forgetting that of Chaudhry et al. (arXiv:1801.10112); △ are
means over the triangle of all tasks after each task (docs/metrics.md). Worst task: the TAw accuracy least above its
chance level, of all tasks and seeds. Seconds are those of one run, all tasks."""


def write_table(
    file: Path, lines: Sequence[Record], *, described: Sequence[tuple[str, str]], plots: Sequence[str]
) -> None:
    """Write a Markdown page: the setting, a row for each strategy, and the unfinished runs."""
    complete, partial = by_completeness(lines)
    rows = [_row(name, complete[name]) for name in strategies.names() if name in complete]
    parts = [
        "# Results of an experiment",
        "\n".join(["| setting | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in described)]),
        "\n".join([*_head(), *rows]) if rows else "No run is finished yet.",
        _LEGEND,
    ]
    if partial:
        parts.append("Not finished and not in the table: " + "; ".join(partial) + ".")
    parts += [f"![{Path(plot).stem}]({plot})" for plot in plots]
    replace(file, "\n\n".join(parts) + "\n")


def by_completeness(lines: Sequence[Record]) -> tuple[dict[str, list[list[Record]]], list[str]]:
    """Complete runs by strategy, each as its lines in the order of tasks; and the other runs, in words."""
    runs: dict[str, list[Record]] = {}
    for line in sorted(lines, key=lambda line: (line["seed"], line["task"])):
        runs.setdefault(line["run"], []).append(line)
    complete: dict[str, list[list[Record]]] = {}
    partial = []
    for run in runs.values():
        if len(run) == run[0]["tasks"]:
            complete.setdefault(run[0]["strategy"], []).append(run)
        else:
            partial.append(f"{run[0]['strategy']} seed {run[0]['seed']}, {len(run)} of {run[0]['tasks']} tasks")
    return complete, partial


def percent(values: Sequence[float | None]) -> str:
    """Mean and deviation, ``37.8 ± 0.5``; of a single value only the value; `NONE` if a value was not measured."""
    known = [value * 100 for value in values if value is not None]
    if not known or len(known) < len(values):
        return NONE
    mean = f"{statistics.fmean(known):.1f}"
    return f"{mean} ± {statistics.stdev(known):.1f}" if len(known) > 1 else mean


def _head() -> list[str]:
    titles = ["strategy", "seeds"]
    titles += [f"{FORM_TITLES[form]} {title}" for form in FORMS for title in _COLUMNS.values()]
    titles += ["worst task (chance)", "seconds"]
    return [_cells(titles), "|---|" + "---:|" * (len(titles) - 1)]


def _row(name: str, runs: Sequence[Sequence[Record]]) -> str:
    last = [run[-1] for run in runs]
    cells = [name, str(len(runs))]
    cells += [percent([line[form][column] for line in last]) for form in FORMS for column in _COLUMNS]
    return _cells([*cells, _worst(last), _seconds(runs)])


def _worst(last: Sequence[Record]) -> str:
    worst = worst_task(last)
    return NONE if worst is None else f"{worst[0] * 100:.1f} ({worst[1] * 100:.1f})"


def _seconds(runs: Sequence[Sequence[Record]]) -> str:
    return f"{statistics.fmean(sum(line['seconds'] for line in run) for run in runs):.0f}"


def _cells(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _cell(value: str) -> str:
    return value.replace("|", "\\|")
