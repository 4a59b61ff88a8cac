"""Tasks: how classes are divided, that every image keeps its label, and when two sequences are the same."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import Invalid
from tests.trainer.experiments.pictures import pixels_of, tasks_of
from trainer.experiments.data.datasets import Dataset
from trainer.experiments.data.tasks import Task, digest, divide, load, save, sizes
from trainer.learning.data import ImageSet


def dataset_of(*labels: str, groups: tuple[int, ...] | None = None) -> Dataset:
    """Two training images and one test image of each label, mixed; a label's pixels are its position's."""
    kinds = [*range(len(labels)), *reversed(range(len(labels)))]

    def side(kinds: list[int], seed: int) -> ImageSet:
        pixels = torch.cat([pixels_of(kind, 1, seed=seed + at) for at, kind in enumerate(kinds)])
        return ImageSet(pixels, torch.tensor(kinds), tuple(f"{labels[kind]} {at}" for at, kind in enumerate(kinds)))

    return Dataset(labels, groups or (0,) * len(labels), side(kinds, 1), side(kinds[: len(labels)], 100))


def divided(
    dataset: Dataset, *, tasks: int, first_task_classes: int | None = None, class_order: int | None = None
) -> tuple[Task, ...]:
    return divide(dataset, tasks=tasks, first_task_classes=first_task_classes, class_order=class_order)


def labels_of(tasks: tuple[Task, ...]) -> list[tuple[str, ...]]:
    return [task.labels for task in tasks]


@pytest.mark.parametrize(
    ("classes", "tasks", "first", "expected"),
    [
        (100, 10, None, [10] * 10),
        (10, 4, None, [3, 3, 2, 2]),
        (100, 6, 50, [50, 10, 10, 10, 10, 10]),
        (10, 3, 5, [5, 3, 2]),
        (4, 1, None, [4]),
        (4, 1, 4, [4]),
    ],
)
def test_classes_are_divided_as_evenly_as_can_be(classes, tasks, first, expected):
    assert sizes(classes, tasks=tasks, first_task_classes=first) == expected


@given(st.integers(1, 200), st.integers(1, 200), st.none() | st.integers(1, 200))
def test_every_class_is_in_one_task_and_every_task_has_one_or_the_division_is_refused(classes, tasks, first):
    try:
        found = sizes(classes, tasks=tasks, first_task_classes=first)
    except Invalid:
        rest = classes if first is None else classes - first
        assert rest < tasks - (first is not None) or (tasks == 1 and first is not None and rest)
        return
    assert (sum(found), len(found)) == (classes, tasks)
    later = found if first is None else found[1:]
    assert first in {None, found[0]}
    assert not later or (min(later) > 0 and max(later) - min(later) <= 1)


def test_too_few_classes_are_told_with_their_number():
    with pytest.raises(Invalid, match="3 classes cannot be divided into 2 tasks, 3 of them in the first"):
        divided(dataset_of("a", "b", "c"), tasks=2, first_task_classes=3)


def test_classes_come_in_the_order_of_the_data_and_sorted_within_a_task():
    assert labels_of(divided(dataset_of("d", "a", "c", "b"), tasks=2)) == [("a", "d"), ("b", "c")]


def test_archives_that_are_as_many_as_the_tasks_are_the_tasks():
    dataset = dataset_of("a", "b", "c", "d", "e", groups=(0, 0, 0, 4, 4))
    assert labels_of(divided(dataset, tasks=2)) == [("a", "b", "c"), ("d", "e")]
    assert labels_of(divided(dataset, tasks=3)) == [("a", "b"), ("c", "d"), ("e",)]
    assert labels_of(divided(dataset, tasks=2, first_task_classes=4)) == [("a", "b", "c", "d"), ("e",)]


def test_an_order_by_seed_is_a_shuffle_of_its_own():
    dataset = dataset_of(*"abcdefghij", groups=(0,) * 5 + (1,) * 5)
    orders = [labels_of(divided(dataset, tasks=2, class_order=seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(label for task in orders[2] for label in task) == list("abcdefghij")


@pytest.mark.parametrize("class_order", [None, 0, 1])
def test_every_image_keeps_its_label_and_targets_are_in_the_order_of_the_logits(class_order):
    dataset = dataset_of("d", "a", "c", "b", "e")
    tasks = divided(dataset, tasks=2, class_order=class_order)
    labels = [label for task in tasks for label in task.labels]
    for side in ("train", "test"):
        before = getattr(dataset, side)
        pixels = dict(zip(before.ids, before.pixels, strict=True))
        for task in tasks:
            images = getattr(task, side)
            for image, target, name in zip(images.pixels, images.targets.tolist(), images.ids, strict=True):
                assert labels[target] == name.split()[0]
                assert labels[target] in task.labels
                assert torch.equal(image, pixels.pop(name))
        assert not pixels


def test_what_is_saved_is_what_is_loaded(tmp_path):
    tasks = tasks_of(2, 3, 1)
    save(tmp_path / "tasks", tasks)
    again = load(tmp_path / "tasks")
    assert digest(again) == digest(tasks)
    assert labels_of(again) == labels_of(tasks)
    for side in ("train", "test"):
        for one, other in zip(tasks, again, strict=True):
            assert torch.equal(getattr(one, side).pixels, getattr(other, side).pixels)
            assert getattr(one, side).ids == getattr(other, side).ids


def changed_pixel(task: Task) -> Task:
    pixels = task.test.pixels.clone()
    pixels[0, 0, 0, 0] ^= 1
    return replace(task, test=replace(task.test, pool=pixels))


@pytest.mark.parametrize(
    "change",
    [
        changed_pixel,
        lambda task: replace(task, labels=(*task.labels[:-1], "another")),
        lambda task: replace(task, train=replace(task.train, targets=task.train.targets.flip(0))),
        lambda task: replace(task, train=replace(task.train, ids=(*task.train.ids[:-1], "another"))),
        lambda task: replace(task, train=task.train.select(torch.arange(len(task.train)).flip(0))),
        lambda task: replace(task, train=task.test, test=task.train),
    ],
)
def test_the_digest_tells_everything_apart_that_is_learned_or_measured(change):
    first, second = tasks_of(2, 3)
    assert digest((first, change(second))) != digest((first, second)) == digest(tasks_of(2, 3))
