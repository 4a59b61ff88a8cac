"""The material of an increment: its parent, its training images and its evaluation images."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as release_of
from itertools import chain
from typing import Any

import torch
from sqlalchemy import Connection
from torch import Tensor

from storage.domain import Image, Split
from storage.errors import BatchInvalid, NothingToLearn
from storage.evaluations import FILE
from storage.history import evaluation
from storage.material import images
from storage.work.admission import check_all_shown
from trainer.learning import exemplars
from trainer.learning.data import ImageSet
from trainer.learning.increment import PROCEDURE
from trainer.learning.learned import Learned, features_of
from trainer.learning.seeds import Seeds
from trainer.networks import load_version
from trainer.networks.manifest import PROGRAM
from trainer.process import pixels
from trainer.process.context import AttemptContext
from trainer.process.job import Job
from trainer.recipes import Recipe

_SOFTWARE = ("accrete", "torch", "torchvision", "pillow")


@dataclass(frozen=True)
class Material:
    """The images that an increment learns from and is measured on, with its parent and its tasks."""

    parent: Learned | None
    tasks: tuple[tuple[str, ...], ...]  # labels by task; a new task is the last one
    new_classes: int
    train: ImageSet
    kept: ImageSet | None  # exemplars of old classes, most wanted first within a class
    rehearsed: ImageSet | None  # old images to learn from: ``kept``, or all that are stored
    tests: tuple[ImageSet | None, ...]  # evaluation images by task; None where they are deleted

    @property
    def shown(self) -> ImageSet:
        """The images that it learns from: those of the batch, and the old ones that are rehearsed."""
        return self.train if self.rehearsed is None else self.train + self.rehearsed

    @property
    def measured(self) -> ImageSet:
        """The evaluation images of all tasks; empty if all are deleted."""
        nothing = self.train.select(torch.empty(0, dtype=torch.int64))
        return sum((task for task in self.tests if task is not None), start=nothing)


@dataclass(frozen=True)
class _Stored:
    """References to stored images. No image is in two groups; no evaluation image is in a group to learn from."""

    train: tuple[Image, ...]
    kept: tuple[Image, ...]  # the parent's exemplars
    spare: tuple[Image, ...]  # other training images of old classes, of those that `_asking` names
    tests: tuple[tuple[Image, ...], ...]  # evaluation images by task


def gather(job: Job, recipe: Recipe, context: AttemptContext, *, device: torch.device) -> Material:
    """Read images and parent; the parent is loaded onto ``device``.

    Raises `BatchInvalid` or `NothingToLearn` where too few training images are left of a class.
    """
    new = tuple(sorted({count.label for count in job.counts} - set(job.known)))
    tasks = (*(job.parent.tasks if job.parent else ()), *((new,) if new else ()))
    classes = {label: index for index, label in enumerate(label for task in tasks for label in task)}
    stored = _find(job, tasks, context)
    _check_taught(job, new, stored)

    groups = [stored.train, stored.kept, stored.spare, *stored.tests]
    everything = [image for group in groups for image in group]
    pool = pixels.pool(everything, form=job.form, claim=job.claim, context=context)
    sets = cut(pool, groups, classes)
    parent, (train, kept, spare, *tests) = parent_of(job, context, device), sets
    assert train is not None  # there is an image: checked above
    old = _together(kept, spare) if job.strategy.every_image else None
    if spare is not None and parent is not None and job.model.memory is not None:
        kept = _with_more_exemplars(job, recipe, context, parent=parent, kept=kept, spare=spare)
    return Material(
        parent=parent,
        tasks=tasks,
        new_classes=len(new),
        train=train,
        kept=kept,
        rehearsed=old or kept,
        tests=tuple(tests),
    )


def cut(pixels: Tensor, groups: Sequence[Sequence[Image]], classes: Mapping[str, int]) -> list[ImageSet | None]:
    """An image set for each group, None for an empty one; ``pixels`` are in the order of the groups."""
    sets: list[ImageSet | None] = []
    start = 0
    for group in groups:
        targets = torch.tensor([classes[image.label] for image in group], dtype=torch.int64)
        ids = tuple(image.id for image in group)
        sets.append(ImageSet(pixels, targets, ids, torch.arange(start, start + len(group))) if group else None)
        start += len(group)
    return sets


def _find(job: Job, tasks: Sequence[Sequence[str]], context: AttemptContext) -> _Stored:
    """Find the images. Evaluation images are never learned from, whatever their batch or label; none is learned twice.

    Equal images are recognised by their digests.
    """
    asking = _asking(job)

    def find(connection: Connection) -> tuple[tuple[Image, ...], tuple[tuple[Image, ...], ...], list[Image]]:
        train = images.of_batch(connection, job.batch.id, split=Split.TRAIN)
        new = set(chain.from_iterable(tasks)) - set(job.known)
        tests = (
            *evaluation.of_tasks(connection, job.line, job.batch_of),
            *((images.of_batch(connection, job.batch.id, split=Split.TEST, labels=new),) if new else ()),
        )
        old: list[Image] = []
        for batch in job.old_batches if asking else ():
            found = evaluation.as_known(images.of_batch(connection, batch.id, split=Split.TRAIN), job.merged)
            old.extend(image for image in found if image.label in asking)
        return evaluation.as_known(train, job.merged), tests, old

    train, tests, old = context.read(find)
    if job.strategy.every_image:
        _check_complete(job, old)
    measured = {image.digest for task in tests for image in task}
    train = tuple(image for image in train if image.digest not in measured)
    taken = measured | {image.digest for image in train}
    kept = tuple(image for image in job.exemplars if image.digest not in taken)
    taken |= {image.digest for image in kept}
    spare = tuple({image.digest: image for image in old if image.digest not in taken}.values())
    return _Stored(train=train, kept=kept, spare=spare, tests=tests)


def _asking(job: Job) -> set[str]:
    """Old classes of which training images beside the exemplars are needed: all, or those with free memory places.

    Places are free after the memory was introduced or enlarged, and where a class has fewer images than places.
    """
    if job.strategy.every_image:
        return set(job.known)
    if job.model.memory is None or not job.known:
        return set()
    kept = Counter(image.label for image in job.exemplars)
    share = job.model.memory.share(len(job.known))
    return {label for label in job.known if kept[label] < share}


def _with_more_exemplars(
    job: Job, recipe: Recipe, context: AttemptContext, *, parent: Learned, kept: ImageSet | None, spare: ImageSet
) -> ImageSet | None:
    """The exemplars, with the free places filled as the parent would have filled them."""
    assert job.model.memory is not None
    chosen = exemplars.choose(
        candidates=spare,
        kept=kept,
        share=job.model.memory.share(len(job.known)),
        selection=recipe.exemplar_selection,
        seed=Seeds(recipe.seed, len(job.line)).of("free places"),
        features=lambda shown: features_of(parent, shown, report=context.report),
    )
    pool = kept + spare if kept is not None else spare
    place = {image: position for position, image in enumerate(pool.ids)}
    wanted = [place[image] for ids in chosen.values() for image in ids]
    return pool.select(torch.tensor(wanted)) if wanted else None


def _together(some: ImageSet | None, others: ImageSet | None) -> ImageSet | None:
    return some + others if some is not None and others is not None else some if some is not None else others


def _check_taught(job: Job, new: Sequence[str], stored: _Stored) -> None:
    """Raise `BatchInvalid` or `NothingToLearn` where training images are missing.

    Every new class needs one. A single new class also needs one of an old class. Without a new class, every class of
    the parent needs one.
    """
    names = job.model.names
    if untaught := sorted(names.all(set(new) - {image.label for image in stored.train})):
        raise BatchInvalid(f"No training image is left of {', '.join(untaught)}: all are evaluation images.")
    if not new:
        if not stored.train:
            raise BatchInvalid("No training image of the batch is left: all are evaluation images of earlier ones.")
        shown = (*stored.train, *stored.kept, *stored.spare)
        check_all_shown(known=job.known, shown={image.label for image in shown}, names=names)
    old = set(job.known)
    if len(new) == 1 and not any(image.label in old for image in (*stored.train, *stored.kept, *stored.spare)):
        raise NothingToLearn(
            f"{names.name(new[0])!r} alone cannot be learned, cross-entropy over a single class being constant, and no "
            "training image of an old class is left to set beside it: send a second new class with it, or images of "
            "old classes with known_classes=rehearse.",
            classes=list(names.all(new)),
        )


def _check_complete(job: Job, old: Sequence[Image]) -> None:
    """Raise `BatchInvalid` unless every training image of the old batches is stored, as joint training needs them all.

    Otherwise it would silently train without the images that retention deleted.
    """
    left = Counter(image.label for image in old)
    taught: Counter[str] = Counter()
    for batch in job.old_batches:
        for count in batch.classes:
            taught[job.merged.get(count.label, count.label)] += count.train
    if gone := [
        f"{job.model.names.name(label)} {left[label]} of {taught[label]}"
        for label in job.known
        if left[label] < taught[label]
    ]:
        raise BatchInvalid(
            f"{job.increment.strategy!r} learns every class anew from all its training images, and not all are left "
            f"({', '.join(gone)}): the model's retention did not keep them. Choose another strategy."
        )


def parent_of(job: Job, context: AttemptContext, device: torch.device) -> Learned | None:
    """The parent, loaded onto a device from its files, which are left in the folder ``parent``; None without one."""
    if job.parent is None:
        return None
    folder = context.folder / "parent"
    folder.mkdir()
    with context.report.opaque():
        for name, file in job.parent.files.items():
            if name not in {FILE, PROGRAM}:  # a training needs neither
                context.blobs.fetch(file.sha256, folder / name)
        loaded = load_version(folder, device=device)
    network = loaded.network.to(memory_format=torch.channels_last)
    return Learned(network, loaded.transform)


def training_of(job: Job, material: Material) -> dict[str, str]:
    """Digests of everything that determines the result of a training, by name."""
    parent = job.parent
    parts: dict[str, Any] = {
        "increment": job.increment.id,
        "training procedure": PROCEDURE,
        "parent": (parent.number, parent.files["weights.safetensors"].sha256) if parent is not None else None,
        "batch": job.batch.digest,
        "set of images": _named(material.train),
        "set of exemplars": _named(material.rehearsed) if material.rehearsed is not None else None,
        "strategy": job.increment.strategy,
        "recipe": dict(job.increment.recipe),
        "software version": {name: release_of(name) for name in _SOFTWARE},
    }
    return {name: _digest(part) for name, part in parts.items()}


def _named(images: ImageSet) -> list[Any]:
    """Ids and targets of the images, in the order in which they are shown."""
    return [list(images.ids), images.targets.tolist()]


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
