"""What learning labels over classes not shown does to them: `python -m benchmarks.shown_classes --data FOLDER`.

Labels can be learned among the classes *shown*, those of which the increment has images, or among all seen classes.
Two cases, on the archives of the folder, a task each:

- ``sent``: a model without memory gets a second task and, with it, the images of one class of the first task. What is
  left of the other classes of the first task, told among the classes of that task (TAw) and among all (TAg)?
- ``half``: a second task with exemplars of every second class of the first. What is left of the classes of which there
  are none?

Each increment is trained twice from the same parent, seed for seed, the labels over the one set of classes and over the
other. All else is as the service does it. A line a run goes to standard output as JSON.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.parts.machine import described
from losses import Objective, objective
from trainer.experiments.data.datasets import Limits
from trainer.experiments.data.datasets import load as read
from trainer.experiments.data.tasks import Task, divide, joined
from trainer.learning import phases
from trainer.learning.data import ImageSet
from trainer.learning.increment import Architecture, learn
from trainer.learning.learned import Learned, logits_of
from trainer.recipes import resolve
from trainer.reporting import SilentReport

CPU = torch.device("cpu")
CASES = {"sent": ("lwf", "lwf-bsr"), "half": ("lucir", "lucir-bsr", "lwf-bsr")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--per-class", type=int, default=20, help="exemplars of a class, in the case half")
    asked = parser.parse_args()
    print(described())
    dataset = read(
        [str(asked.data)], folder=asked.data, image_size=asked.image_size, limits=Limits(20, None), threads=2
    )
    tasks = divide(dataset, tasks=2, first_task_classes=None, class_order=None)
    for case, strategies in CASES.items():
        for strategy in strategies:
            for seed in range(asked.seeds):
                for line in compared(case, strategy, seed, tasks, asked):
                    print(json.dumps({"case": case, "strategy": strategy, "seed": seed} | line), flush=True)


def compared(
    case: str, strategy: str, seed: int, tasks: tuple[Task, ...], asked: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """What is left of the classes not shown: before, with labels among the classes shown, and among all seen ones."""
    first, second = tasks
    parent = increment(asked, strategy, seed, images=first.train, new=len(first.labels))
    is_shown = torch.zeros(len(first.labels), dtype=torch.bool)
    is_shown[0 if case == "sent" else slice(0, None, 2)] = True
    old = first.train.select(is_shown[first.train.targets].nonzero().squeeze(1))
    if case == "half":
        places = [(old.targets == label).nonzero().squeeze(1)[: asked.per_class] for label in is_shown.nonzero()]
        old = old.select(torch.cat(places))
    unseen = first.test.select((~is_shown[first.test.targets]).nonzero().squeeze(1))
    yield {"labels": "before", **accuracy(parent, unseen, len(first.labels))}
    for among in ("shown", "all"):
        with labels_over_all(among == "all"):
            images, kept = (joined([second.train, old]), None) if case == "sent" else (second.train, old)
            taught = increment(asked, strategy, seed, parent=parent, images=images, kept=kept, new=len(second.labels))
        yield {
            "labels": among,
            **accuracy(taught, unseen, len(first.labels)),
            "new_tag": accuracy(taught, second.test, len(first.labels))["tag"],
        }


def increment(
    asked: argparse.Namespace,
    strategy: str,
    seed: int,
    *,
    images: ImageSet,
    new: int,
    parent: Learned | None = None,
    kept: ImageSet | None = None,
) -> Learned:
    """One increment as the service's training process does it."""
    return learn(
        parent=parent,
        architecture=Architecture("resnet32", image_size=asked.image_size, channels=3),
        new_classes=new,
        images=images,
        exemplars=kept,
        strategy=strategy,
        recipe=resolve(strategy, {"epochs": asked.epochs, "minibatch": 32, "warmup_epochs": 0.25, "seed": seed}),
        t=0 if parent is None else 1,
        weights_folder=Path(),
        device=CPU,
        report=SilentReport(),
    )


def accuracy(learned: Learned, images: ImageSet, first_classes: int) -> dict[str, float]:
    """In %: among all classes, and among those of the first task."""
    logits: Tensor = logits_of(learned, images, report=SilentReport())
    tag = (logits.argmax(1) == images.targets).float().mean()
    taw = (logits[:, :first_classes].argmax(1) == images.targets).float().mean()
    return {"tag": round(100 * float(tag), 1), "taw": round(100 * float(taw), 1)}


@contextmanager
def labels_over_all(wanted: bool) -> Iterator[None]:
    """Have objectives learn labels over all seen classes, or over those shown."""

    def changed(*arguments: Any, **named: Any) -> Objective:
        return dataclasses.replace(objective(*arguments, **named), over_all_classes=wanted)

    with patch.object(phases, "objective", changed):
        yield


if __name__ == "__main__":
    main()
