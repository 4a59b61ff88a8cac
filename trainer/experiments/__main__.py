"""`python -m trainer.experiments`: strategies compared on a sequence of tasks, with the service's own increment."""

import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from storage.errors import AccreteError, Invalid
from trainer.experiments import plan, results
from trainer.experiments.arguments import Arguments, parse
from trainer.experiments.data import datasets, tasks
from trainer.experiments.data.tasks import Task
from trainer.experiments.progress_log import ProgressLog, say
from trainer.experiments.report.files import Report, setting_in_words
from trainer.experiments.runs import devices
from trainer.experiments.runs.children import perform_all
from trainer.experiments.runs.devices import Machine
from trainer.experiments.runs.run import Order, finished
from trainer.recipes import resolve

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130  # exit statuses


def main() -> int:
    """Run the experiment of the command line; the exit status, 0 if all runs are complete."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no process is left running
    try:
        return _experiment(parse())
    except (AccreteError, OSError) as error:
        say(f"error: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return INTERRUPTED


def _experiment(asked: Arguments) -> int:
    machine = devices.shared(devices.present(asked.devices), jobs=asked.jobs, threads=asked.threads)
    for strategy in asked.strategies:
        resolve(strategy, asked.recipe)  # a wrong recipe is refused before the data are read
    sequence = _tasks(asked, machine)
    setting = plan.describe(
        sequence, network=asked.network, memory=asked.memory, recipe=asked.recipe, weights_folder=asked.weights_folder
    )
    runs = plan.runs(setting, sequence, strategies=asked.strategies, seeds=asked.seeds)
    asked.out.mkdir(parents=True, exist_ok=True)
    report = Report(asked.out, setting, setting_in_words(asked, setting, sequence))
    with tempfile.TemporaryDirectory(prefix=".tasks-", dir=asked.out) as folder:
        file = Path(folder).resolve() / "tasks.safetensors"
        orders = _left(
            [Order(run, file, asked.out, machine.devices[0], machine.threads, asked.weights_folder) for run in runs],
            results.read(asked.out / results.RESULTS),
            tasks=len(sequence),
        )
        narrator = ProgressLog(runs=len(orders), tasks=len(sequence))

        def tell(order: Order, message: Mapping[str, Any]) -> None:
            narrator.tell(order, message)
            if message["kind"] == "task":
                report.write()

        if orders:
            tasks.save(file, sequence)
        failed = perform_all(orders, devices=machine.devices, jobs=machine.jobs, tell=tell)
    try:
        report.draw()
    except ImportError as error:
        report.write()
        say(f"notice: no plots, as they need matplotlib ({error})")
    say(f"{asked.out / 'results.md'} has the table")
    return FAILED if failed else 0


def _tasks(asked: Arguments, machine: Machine) -> tuple[Task, ...]:
    dataset = datasets.load(
        asked.data,
        folder=asked.folder,
        image_size=asked.image_size,
        limits=asked.limits,
        threads=machine.threads * machine.jobs,
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


def _left(orders: Sequence[Order], lines: Sequence[results.Record], *, tasks: int) -> list[Order]:
    """The orders of runs that are not complete; prints what is recorded already."""
    known = {order.run.digest for order in orders}
    here = plan.code_version()
    if others := {line["code"] for line in lines if line["run"] in known} - {here}:
        say(f"notice: some results were made by other code: {'; '.join(sorted(others))}; here is {here}")
    left = [order for order in orders if not _complete(order, lines, tasks=tasks)]
    if len(left) < len(orders):
        say(f"{len(orders) - len(left)} of {len(orders)} runs are complete already")
    return left


def _complete(order: Order, lines: Sequence[results.Record], *, tasks: int) -> bool:
    with suppress(Invalid):  # a version is damaged: the run itself will say which, and the other runs go on
        return finished(order, lines, tasks=tasks) == tasks
    return False


if __name__ == "__main__":
    sys.exit(main())
