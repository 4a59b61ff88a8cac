"""`python -m trainer.experiments`: strategies compared on a sequence of tasks, with the service's own increment."""

import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.errors import AccreteError
from trainer.experiments import datasets, devices, plan, results, tasks
from trainer.experiments.arguments import Arguments, parse
from trainer.experiments.children import perform_all
from trainer.experiments.narration import Narrator, say
from trainer.experiments.plan import Run
from trainer.experiments.report import Report, describe
from trainer.experiments.run import Order, finished
from trainer.experiments.tasks import Task
from trainer.recipes import resolve

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130  # exit statuses


def main() -> int:
    """Run the experiment of the command line; 0 unless something could not be done."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing is left running
    try:
        return _experiment(parse())
    except (AccreteError, OSError) as error:
        say(f"error: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return INTERRUPTED


def _experiment(asked: Arguments) -> int:
    places = devices.present(asked.devices)
    for strategy in asked.strategies:
        resolve(strategy, asked.recipe)  # what is wrong with it is said before the data are read
    sequence = _tasks(asked)
    setting = plan.describe(
        sequence, network=asked.network, memory=asked.memory, recipe=asked.recipe, weights_folder=asked.weights_folder
    )
    runs = plan.runs(setting, sequence, strategies=asked.strategies, seeds=asked.seeds)
    asked.out.mkdir(parents=True, exist_ok=True)
    report = Report(asked.out, setting, describe(asked, setting, sequence))
    with tempfile.TemporaryDirectory(prefix=".tasks-", dir=asked.out) as folder:
        file = Path(folder).resolve() / "tasks.safetensors"
        orders = [
            Order(run, file, asked.out, places[0], asked.threads, asked.weights_folder)
            for run in _left(asked.out / results.RESULTS, runs, tasks=len(sequence))
        ]
        narrator = Narrator(runs=len(orders), tasks=len(sequence))

        def tell(order: Order, message: Mapping[str, Any]) -> None:
            narrator.tell(order, message)
            if message["kind"] == "task":
                report.write()

        if orders:
            tasks.save(file, sequence)
        failed = perform_all(orders, devices=places, jobs=asked.jobs, tell=tell)
    try:
        report.draw()
    except ImportError as error:
        report.write()
        say(f"notice: no plots, as they need matplotlib ({error})")
    say(f"{asked.out / 'results.md'} has the table")
    return FAILED if failed else 0


def _tasks(asked: Arguments) -> tuple[Task, ...]:
    dataset = datasets.load(
        asked.data,
        folder=asked.folder,
        image_size=asked.image_size,
        limits=asked.limits,
        threads=asked.threads * asked.jobs,
    )
    sequence = tasks.divide(
        dataset, tasks=asked.tasks, first_task_classes=asked.first_task_classes, class_order=asked.class_order
    )
    sizes = ", ".join(str(len(task.labels)) for task in sequence)
    say(
        f"{len(dataset.train):,} images to train on, {len(dataset.test):,} to test on, {dataset.image_size} × "
        f"{dataset.image_size}; {len(dataset.labels)} classes in {len(sequence)} tasks of {sizes}"
    )
    return sequence


def _left(file: Path, runs: Sequence[Run], *, tasks: int) -> list[Run]:
    """The runs that are not complete; says what is on record already."""
    lines = results.read(file)
    known = {run.digest for run in runs}
    here = plan.code_version()
    if others := {line["code"] for line in lines if line["run"] in known} - {here}:
        say(f"notice: some results were made by other code: {'; '.join(sorted(others))}; here is {here}")
    left = [run for run in runs if len(finished(run, lines)) < tasks]
    if len(left) < len(runs):
        say(f"{len(runs) - len(left)} of {len(runs)} runs are complete already")
    return left


if __name__ == "__main__":
    sys.exit(main())
