"""How long the plain loop takes to come to its accuracy, and how long the preset `recommended` does.

`python -m benchmarks.time_to_quality --data FOLDER` learns five tasks of ten classes (the archives task-00.zip … of the
folder) with `lwf-bsr` and without exemplars: by the plain loop (`benchmarks.parts.plainloop`) in 20 epochs a task with
the best of three learning rates on the first task, and by `recommended`. Task by task in turn, for each seed. Seconds
are those of training alone. A line a task goes into --log as it comes, so that an interrupted run is not lost.
"""

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.parts.machine import described
from benchmarks.parts.plainloop import Habits, PlainLoop, successor
from trainer.evaluation.evaluate import evaluate
from trainer.experiments.data.datasets import Limits
from trainer.experiments.data.datasets import load as read
from trainer.experiments.data.tasks import Task, divide, joined
from trainer.learning.compute import choose
from trainer.learning.data import channel_statistics
from trainer.learning.increment import Architecture, learn
from trainer.learning.learned import Learned
from trainer.networks import EvaluationTransform, build
from trainer.recipes import resolve
from trainer.reporting import SilentReport

STRATEGY = "lwf-bsr"
RATES = (0.03, 0.1, 0.3)
RESNET32 = Architecture("resnet32", image_size=32, channels=3)
CPU = torch.device("cpu")


@dataclass
class Line:
    """A sequence of versions, with what it took to train them and what they are worth."""

    learned: Learned | None = None
    documents: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def accuracy(self, form: str) -> float:
        """Mean over the tasks after the last one, in %; ``tag`` or ``taw``."""
        return 100 * float(self.documents[-1][form]["average_accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20, help="of the plain loop, a task")
    parser.add_argument("--minibatch", type=int, default=64, help="of the plain loop; the published schedule's")
    parser.add_argument("--momentum", type=float, default=0.0, help="of the plain loop; the published schedule's")
    parser.add_argument(
        "--drop-last", action="store_true", help="the plain loop leaves minibatches out that are not full"
    )
    parser.add_argument("--rate", type=float, help="of the plain loop, if the search is to be left out")
    parser.add_argument("--float32", action="store_true", help="recommended in float32, too, if it chooses another")
    parser.add_argument("--recipe", type=json.loads, default={}, help="changes to the recommended recipe, as JSON")
    parser.add_argument("--log", type=Path, default=Path("time-to-quality.jsonl"))
    chosen = parser.parse_args()
    tasks = tasks_of(chosen.data, chosen.tasks)
    print(f"{described()}\n", flush=True)
    rate = chosen.rate or best_rate(tasks[0], chosen)
    print("| seed | loop | seconds | TAg | TAw | share of the time |\n|---|---|---|---|---|---|")
    shares: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        lines = raced(tasks, rate=rate, seed=seed, chosen=chosen)
        for name, line in lines.items():
            share = line.seconds / lines["plain"].seconds
            shares.setdefault(name, []).append(share)
            accuracies = f"{line.accuracy('tag'):.1f} | {line.accuracy('taw'):.1f}"
            print(f"| {seed} | {name} | {line.seconds:.0f} | {accuracies} | {share:.2f} |", flush=True)
    means = ", ".join(f"{name} {mean(each):.2f}" for name, each in shares.items() if name != "plain")
    print(f"\nMean share of the time: {means}. The plain loop's rate was {rate:g}.")


def tasks_of(folder: Path, count: int) -> tuple[Task, ...]:
    """The first so many archives, each a task."""
    archives = [str(folder / f"task-{number:02d}.zip") for number in range(count)]
    dataset = read(archives, folder=folder, image_size=RESNET32.image_size, limits=Limits(), threads=2)
    return divide(dataset, tasks=count, first_task_classes=None, class_order=None)


def best_rate(task: Task, chosen: argparse.Namespace) -> float:
    """The rate that gives the plain loop the highest accuracy on the first task."""
    found = {}
    for rate in RATES:
        line = Line()
        plain_task(line, [task], rate=rate, seed=0, chosen=chosen)
        found[rate] = line.accuracy("tag")
        print(f"plain loop, rate {rate:g}: {found[rate]:.1f} % after the first task, {line.seconds:.0f} s", flush=True)
    print()
    return max(found, key=lambda rate: found[rate])


def raced(tasks: Sequence[Task], *, rate: float, seed: int, chosen: argparse.Namespace) -> dict[str, Line]:
    """All learn the tasks, in turn."""
    precisions = sorted({choose(CPU, "auto").precision} | ({"float32"} if chosen.float32 else set()))
    lines = {"plain": Line()} | {f"recommended, {precision}": Line() for precision in precisions}
    for number in range(1, len(tasks) + 1):
        plain_task(lines["plain"], tasks[:number], rate=rate, seed=seed, chosen=chosen)
        for precision in precisions:
            recipe = chosen.recipe | {"precision": precision}
            our_task(lines[f"recommended, {precision}"], tasks[:number], seed=seed, recipe=recipe)
        with chosen.log.open("a") as log:
            for name, line in lines.items():
                said = {"tag": line.accuracy("tag"), "taw": line.accuracy("taw"), "seconds": round(line.seconds, 1)}
                log.write(json.dumps({"seed": seed, "tasks": number, "loop": name, **said}) + "\n")
    return lines


def plain_task(line: Line, tasks: Sequence[Task], *, rate: float, seed: int, chosen: argparse.Namespace) -> None:
    """The plain loop learns the last of the tasks."""
    images = tasks[-1].train
    torch.manual_seed(seed)
    if line.learned is None:
        mean_, std = channel_statistics(images)
        transform = EvaluationTransform(RESNET32.image_size, RESNET32.channels, mean=mean_, std=std)
        teacher, start = None, build("resnet32", channels=3, image_size=RESNET32.image_size)
    else:
        transform, start = line.learned.transform, line.learned.network
        teacher = copy.deepcopy(start)
    loop = PlainLoop(
        successor(start, new_classes=len(tasks[-1].labels)),
        teacher,
        images,
        transform,
        habits=Habits(
            STRATEGY,
            learning_rate=rate,
            minibatch=chosen.minibatch,
            momentum=chosen.momentum,
            drop_last=chosen.drop_last,
        ),
        device=CPU,
    )
    began = time.perf_counter()
    for _ in range(chosen.epochs):
        loop.epoch()
    line.seconds += time.perf_counter() - began
    finished(line, Learned(loop.student.eval(), transform), tasks)


def our_task(line: Line, tasks: Sequence[Task], *, seed: int, recipe: dict[str, Any]) -> None:
    """The increment learns the last of the tasks."""
    began = time.perf_counter()
    learned = learn(
        parent=line.learned,
        architecture=RESNET32,
        new_classes=len(tasks[-1].labels),
        images=tasks[-1].train,
        exemplars=None,
        strategy=STRATEGY,
        recipe=resolve(STRATEGY, {"seed": seed}, recipe),
        t=len(tasks) - 1,
        weights_folder=Path(),
        device=CPU,
        report=SilentReport(),
    )
    line.seconds += time.perf_counter() - began
    finished(line, learned, tasks)


def finished(line: Line, learned: Learned, tasks: Sequence[Task]) -> None:
    """The next version, measured on the test images of all tasks so far."""
    line.documents.append(
        evaluate(
            learned,
            joined([task.test for task in tasks]),
            ancestors=line.documents,
            labels=[label for task in tasks for label in task.labels],
            report=SilentReport(),
        ).document
    )
    line.learned = learned


if __name__ == "__main__":
    main()
