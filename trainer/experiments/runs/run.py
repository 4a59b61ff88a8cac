"""One run: its unfinished tasks are learned by the functions that the service uses."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.evaluation.evaluate import evaluate
from trainer.experiments import results
from trainer.experiments.data.tasks import Task, joined
from trainer.experiments.plan import Run, code_version
from trainer.experiments.runs.folder import RunFolder
from trainer.learning import exemplars
from trainer.learning.compute import use_device
from trainer.learning.data import ImageSet
from trainer.learning.increment import Architecture, learn
from trainer.learning.learned import Learned, features_of
from trainer.learning.seeds import Seeds
from trainer.recipes import known
from trainer.reporting import SilentReport

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """What a run is to do, where and with what."""

    run: Run
    tasks: Path  # a file of `trainer.experiments.data.tasks.save`
    out: Path
    device: str
    threads: int
    weights_folder: Path

    @property
    def folder(self) -> RunFolder:
        """Where the run's versions are."""
        return RunFolder(self.out / "runs" / self.run.name)

    @property
    def results(self) -> Path:
        """Where the lines of all runs are."""
        return self.out / results.RESULTS


class _Epochs(SilentReport):
    """Passes on finished epochs."""

    def __init__(self, say: Say, task: int) -> None:
        self._say = say
        self._task = task

    def epoch(self, **done: Any) -> None:
        self._say({"kind": "epoch", "task": self._task, **done})


def perform(order: Order, tasks: Sequence[Task], say: Say) -> None:
    """Perform all tasks of the run that are not finished.

    Raises `RunElsewhere` if another process works on it, `Invalid` for a damaged version, `BelowChance`, and the errors
    of `learn`.
    """
    torch.set_num_threads(order.threads)
    use_device(torch.device(order.device))
    code_version()  # cached now, in case the sources are edited during training
    with order.folder.alone():
        order.folder.prune(len(tasks))
        for t in range(finished(order, results.read(order.results), tasks=len(tasks)), len(tasks)):
            if not order.folder.has(t):  # else a crash came after the folder, before the line
                _learn(order, tasks[: t + 1], say)
            line = _line(order, t, tasks=len(tasks))
            results.append(order.results, line)
            averages = {form: line[form]["average_accuracy"] for form in results.FORMS}
            say({"kind": "task", "task": t, "seconds": line["seconds"], **averages})


def finished(order: Order, lines: Sequence[results.Record], *, tasks: int) -> int:
    """Number of the first tasks, of ``tasks`` in all, that are on disk and whose recorded line matches the disk.

    Raises `Invalid` if a version is damaged.
    """
    recorded = {line["task"]: line for line in lines if line["run"] == order.run.digest}
    for t in range(tasks):
        if not order.folder.has(t) or t not in recorded or recorded[t] != _line(order, t, tasks=tasks):
            return t
    return tasks


def _line(order: Order, t: int, *, tasks: int) -> dict[str, Any]:
    """The result of a task that is on disk."""
    try:
        return results.record(order.run, task=t, tasks=tasks, manifest=order.folder.manifest(t))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise order.folder.damaged(t, f"no result can be read ({error!r})") from error


def _learn(order: Order, tasks: Sequence[Task], say: Say) -> None:
    """Learn the last of ``tasks`` on top of the version of the task before, measure it, and write it."""
    began = time.monotonic()
    run, t, new = order.run, len(tasks) - 1, tasks[-1]
    kept = _rehearsed(order, tasks)
    channels, size, _width = new.train.shape
    learned = learn(
        # Always loaded from its files, as in the service, so that an interrupted run goes on from the same state.
        parent=order.folder.learned(t - 1) if t else None,
        architecture=Architecture(run.network, image_size=size, channels=channels),
        new_classes=len(new.labels),
        images=new.train,
        exemplars=kept,
        strategy=run.strategy,
        recipe=run.recipe,
        t=t,
        weights_folder=order.weights_folder,
        device=torch.device(order.device),
        report=_Epochs(say, t),
    )
    manifest = {
        "model": run.name,
        "version": t + 1,
        "parent": t or None,
        "tasks": [task.labels for task in tasks],
        "data_digest": run.data_digest,
        "code_version": code_version(),
        "metrics": _measured(order, tasks, learned),
        "strategy": run.strategy,
        "recipe": run.recipe.model_dump(),
    }
    chosen = _chosen(run, tasks, learned, kept)
    execution = {
        "device": order.device,
        "threads": order.threads,
        "train_images": len(new.train),
        "rehearsed": len(kept) if kept else 0,
        "seconds": round(time.monotonic() - began, 3),
    }
    order.folder.write(t, learned, manifest=manifest | {"execution": execution}, exemplars=chosen)


def _rehearsed(order: Order, tasks: Sequence[Task]) -> ImageSet | None:
    """The images of old tasks to learn from beside the new ones; None if there are none."""
    *old, _new = tasks
    if not old:
        return None
    earlier = joined([task.train for task in old])
    if known(order.run.strategy).every_image:
        return earlier
    if order.run.memory is None:
        return None
    position = {image: at for at, image in enumerate(earlier.ids)}
    wanted = [position[image] for image in order.folder.exemplars(len(old) - 1)]
    return earlier.select(torch.tensor(wanted, dtype=torch.int64)) if wanted else None


def _measured(order: Order, tasks: Sequence[Task], learned: Learned) -> dict[str, Any]:
    """The metrics document of the new version, on the test images of all its tasks."""
    return evaluate(
        learned,
        joined([task.test for task in tasks]),
        ancestors=[order.folder.manifest(t)["metrics"] for t in range(len(tasks) - 1)],
        labels=[label for task in tasks for label in task.labels],
        report=SilentReport(),
    ).document


def _chosen(run: Run, tasks: Sequence[Task], learned: Learned, kept: ImageSet | None) -> dict[int, tuple[str, ...]]:
    """The new version's exemplars: image ids by target, most wanted first."""
    if run.memory is None or known(run.strategy).every_image:
        return {}
    return exemplars.choose(
        candidates=tasks[-1].train,
        kept=kept,
        share=run.memory.share(sum(len(task.labels) for task in tasks)),
        selection=run.recipe.exemplar_selection,
        seed=Seeds(run.seed, len(tasks) - 1).of("exemplars"),
        features=lambda images: features_of(learned, images, report=SilentReport()),
    )
