"""The sequence of tasks an experiment learns: classes in their order, divided, with their images."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from storage.errors import Invalid
from trainer.experiments.data.datasets import Dataset, regrouped
from trainer.learning.data import ImageSet


@dataclass(frozen=True)
class Task:
    """The classes of one increment; targets count over all tasks, in the order of the logits."""

    labels: tuple[str, ...]
    train: ImageSet
    test: ImageSet


def divide(
    dataset: Dataset, *, tasks: int, first_task_classes: int | None, class_order: int | None
) -> tuple[Task, ...]:
    """Divide all classes into tasks; raises `Invalid` if there are too few classes.

    Classes stay in the order of the data, or are shuffled by the seed ``class_order``. If there are as many archives as
    tasks, and neither an order nor a first task's size is given, each archive is a task. Within a task labels are
    sorted, as the service does with those of a batch.
    """
    by_task = _labels_by_task(dataset, tasks, first_task_classes, class_order)
    old = {label: target for target, label in enumerate(dataset.labels)}
    divided, known = [], 0
    for labels in by_task:
        targets = {old[label]: known + position for position, label in enumerate(labels)}
        known += len(labels)
        divided.append(Task(labels, regrouped(dataset.train, targets), regrouped(dataset.test, targets)))
    return tuple(divided)


def sizes(classes: int, *, tasks: int, first_task_classes: int | None) -> list[int]:
    """Number of classes of each task: as equal as possible, the larger ones first; the first task's may be given.

    Raises `Invalid` if there are too few classes.
    """
    if first_task_classes is None:
        first, rest, equal = [], classes, tasks
    else:
        first, rest, equal = [first_task_classes], classes - first_task_classes, tasks - 1
    if min([tasks, *first]) < 1 or rest < equal or (equal == 0 and rest):
        given = "" if first_task_classes is None else f", {first_task_classes} of them in the first"
        raise Invalid(f"{classes} classes cannot be divided into {tasks} tasks{given}")
    return [*first, *(rest // equal + (position < rest % equal) for position in range(equal))]


def digest(tasks: Sequence[Task]) -> str:
    """SHA-256 over everything that can be learned or measured: labels, pixels, targets, ids, in their order."""
    state = hashlib.sha256()
    for task in tasks:
        for side in (task.train, task.test):
            state.update(json.dumps([task.labels, side.ids, list(side.pixels.shape)]).encode())
            for tensor in (side.pixels, side.targets):
                state.update(tensor.contiguous().numpy().data)
    return state.hexdigest()


def save(file: Path, tasks: Sequence[Task]) -> None:
    """Write the tasks, decoded, for other processes to read."""
    sides = {f"{t}.{side}": getattr(task, side) for t, task in enumerate(tasks) for side in ("train", "test")}
    tensors = {f"{name}.pixels": images.pixels.contiguous() for name, images in sides.items()}
    tensors |= {f"{name}.targets": images.targets for name, images in sides.items()}
    described = {"labels": [task.labels for task in tasks], **{name: images.ids for name, images in sides.items()}}
    save_file(tensors, file, metadata={name: json.dumps(value) for name, value in described.items()})


def load(file: Path) -> tuple[Task, ...]:
    """The inverse of `save`."""
    with safe_open(file, framework="pt") as opened:
        described = {name: json.loads(value) for name, value in opened.metadata().items()}

        def side(name: str) -> ImageSet:
            pixels, targets = (opened.get_tensor(f"{name}.{part}") for part in ("pixels", "targets"))
            return ImageSet(pixels, targets, tuple(described[name]))

        return tuple(
            Task(tuple(labels), side(f"{t}.train"), side(f"{t}.test")) for t, labels in enumerate(described["labels"])
        )


def joined(images: Sequence[ImageSet]) -> ImageSet:
    """Several sets as one, copied once."""
    return ImageSet(
        torch.cat([part.pixels for part in images]),
        targets=torch.cat([part.targets for part in images]),
        ids=tuple(image for part in images for image in part.ids),
    )


def _labels_by_task(
    dataset: Dataset, tasks: int, first_task_classes: int | None, class_order: int | None
) -> list[tuple[str, ...]]:
    labels = list(dataset.labels)
    archives = sorted(set(dataset.groups))
    if tasks == len(archives) > 1 and first_task_classes is None and class_order is None:
        groups = list(zip(labels, dataset.groups, strict=True))
        return [tuple(sorted(label for label, group in groups if group == archive)) for archive in archives]
    if class_order is not None:
        Random(class_order).shuffle(labels)
    rest = iter(labels)
    each = sizes(len(labels), tasks=tasks, first_task_classes=first_task_classes)
    return [tuple(sorted(islice(rest, size))) for size in each]
