"""The results of each task of each run: one line of JSON in a file that is only appended to."""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.experiments.plan import Run

RESULTS = "results.jsonl"
FORMS = ("tag", "taw")
HEADLINES = (
    "average_accuracy",
    "micro_accuracy",
    "average_incremental_accuracy",
    "forgetting",
    "backward_transfer",
    "triangle_accuracy",
    "triangle_forgetting",
    "calibration_error",
)
LEVELS = ("mean_logit_on_others", "weight_norm", "bias")
_PLAIN = ("run", "strategy", "seed", "task", "tasks", "classes", "train_images", "rehearsed")
_LAST = ("seconds", "device", "threads", "code")

Record = Mapping[str, Any]


def record(run: Run, *, task: int, tasks: int, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a finished task, from the ``version.json`` that was written for it."""
    metrics, execution = manifest["metrics"], manifest["execution"]
    sizes = [len(labels) for labels in manifest["tasks"]]
    return {
        "run": run.digest,
        "strategy": run.strategy,
        "seed": run.seed,
        "task": task,
        "tasks": tasks,
        "classes": sum(sizes),
        "train_images": execution["train_images"],
        "rehearsed": execution["rehearsed"],  # images of old tasks learned from: exemplars, or all of them
        "chance": [1 / size for size in sizes],  # of TAw, by task
        **{
            form: {name: metrics[form][name] for name in ("accuracy", "forgetting_by_task", *HEADLINES)}
            for form in FORMS
        },
        "imbalance": metrics["imbalance"],
        "seconds": execution["seconds"],
        "device": execution["device"],
        "threads": execution["threads"],
        "code": manifest["code_version"],
    }


def append(file: Path, line: Record) -> None:
    """Add a line; safe with several processes at once, and after a crash that cut the last line off."""
    data = json.dumps(line, allow_nan=False).encode() + b"\n"
    with file.open("ab+", buffering=0) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        end = opened.seek(0, os.SEEK_END)
        if end and os.pread(opened.fileno(), 1, end - 1) != b"\n":
            data = b"\n" + data  # the cut-off line stays a line of its own, which `read` skips
        while data:
            data = data[opened.write(data) :]
        os.fsync(opened.fileno())


def read(file: Path) -> list[Record]:
    """The valid lines, run by run, in each run by task.

    A line replaces earlier lines of its run for the same task and for later tasks, since those were learned on top of
    the version that is replaced.
    """
    if not file.exists():
        return []
    found: dict[str, dict[int, Record]] = {}
    for line in file.read_bytes().split(b"\n"):
        try:
            parsed = json.loads(line)
            run, task = parsed["run"], parsed["task"]
            below = {t: kept for t, kept in found.get(run, {}).items() if t < task}
            found[run] = below | {task: parsed}
        except (ValueError, TypeError, KeyError):  # cut off
            continue
    return [line for lines in found.values() for line in lines.values()]


def worst_task(lines: Sequence[Record]) -> tuple[float, float] | None:
    """TAw accuracy, 0 … 1, of the task that is least above its chance level in any of the lines, and that level.

    Tasks of one class do not count, since every answer is right. None if a task was not measured, or no task counts.
    """
    pairs = [pair for line in lines for pair in zip(line["taw"]["accuracy"], line["chance"], strict=True)]
    told = [(accuracy, chance) for accuracy, chance in pairs if chance < 1]
    if not told or any(accuracy is None for accuracy, _ in told):
        return None
    return min(told, key=lambda pair: pair[0] - pair[1])


def write_csv(file: Path, lines: Iterable[Record]) -> None:
    """Write a row for each run and task, with every headline metric; those that were not measured are empty."""
    rows = [_row(line) for line in sorted(lines, key=lambda line: (line["strategy"], line["seed"], line["task"]))]
    replace(file, _csv(rows))


def replace(file: Path, text: str) -> None:
    """Replace a file atomically: readers see the whole old or the whole new one."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _row(line: Record) -> dict[str, Any]:
    worst, chance = worst_task([line]) or (None, None)
    spread = (line["imbalance"] or {}).get("spread", {})
    return {
        **{name: line[name] for name in _PLAIN},
        **{f"{form}_{name}": line[form][name] for form in FORMS for name in HEADLINES},
        "taw_worst_task": worst,
        "taw_worst_task_chance": chance,
        **{f"spread_{name}": spread.get(name) for name in LEVELS},
        **{name: line[name] for name in _LAST},
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()
