"""What an increment learns from, and what it is measured on, brought into memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage import images
from storage.domain import Image, Split
from storage.errors import BatchInvalid
from trainer.data import ImageSet, load
from trainer.increment import Learned
from trainer.job import Job
from trainer.networks import load_version
from trainer.tools import Tools


@dataclass(frozen=True)
class Material:
    """What an increment learns from, and what it is measured on."""

    parent: Learned | None
    tasks: tuple[tuple[str, ...], ...]  # labels by task, the new one last
    train: ImageSet
    kept: ImageSet | None  # the parent's exemplars that are still fit to learn from, most wanted first within a class
    rehearsed: ImageSet | None  # old images to learn from: the same, or all there are
    tests: tuple[ImageSet | None, ...]  # by task; None where the evaluation images are gone


@dataclass(frozen=True)
class _Stored:
    """The same as references to stored images."""

    train: tuple[Image, ...]
    kept: tuple[Image, ...]
    rehearsed: tuple[Image, ...]
    tests: tuple[tuple[Image, ...], ...]


def gather(job: Job, tools: Tools) -> Material:
    """Read it all; raises `BatchInvalid` where a class has no image left to learn from."""
    new = tuple(sorted({count.label for count in job.batch.classes} - set(job.known)))
    tasks = (*(job.parent.tasks if job.parent else ()), new)
    classes = {label: index for index, label in enumerate(label for task in tasks for label in task)}
    stored = _find(job, tasks, tools)

    def resident(wanted: Sequence[Image]) -> ImageSet:
        return load(
            wanted,
            read=tools.blobs.get,
            classes=classes,
            image_size=job.model.image_size,
            channels=job.model.channels,
            max_pixels=tools.settings.max_image_pixels,
            threads=tools.threads,
            advanced=lambda done: tools.report.progress(step=done, steps=len(wanted)),
        )

    kept = resident(stored.kept) if stored.kept else None
    return Material(
        parent=_parent(job, tools),
        tasks=tasks,
        train=resident(stored.train),
        kept=kept,
        rehearsed=resident(stored.rehearsed) if job.strategy.every_image and stored.rehearsed else kept,
        tests=tuple(resident(task) if task else None for task in stored.tests),
    )


def _find(job: Job, tasks: Sequence[Sequence[str]], tools: Tools) -> _Stored:
    """What is measured on is never learned from, whichever batch or label it came with; nothing is learned twice."""
    with tools.database.read() as connection:
        train = images.of_batch(connection, job.batch.id, split=Split.TRAIN)
        # A class is measured on the images its first increment brought, whatever later batches hold of it.
        tests = tuple(
            images.of_batch(connection, batch_id, split=Split.TEST, labels=set(task))
            for batch_id, task in zip((*job.old_batches, job.batch.id), tasks, strict=True)
        )
        rehearsed: Sequence[Image] = job.exemplars
        if job.strategy.every_image:
            of_old = (images.of_batch(connection, batch_id, split=Split.TRAIN) for batch_id in job.old_batches)
            rehearsed = [image for batch in of_old for image in batch]
    measured = {image.digest for task in tests for image in task}
    train = tuple(image for image in train if image.digest not in measured)
    taken = measured | {image.digest for image in train}
    rehearsed = tuple({image.digest: image for image in rehearsed if image.digest not in taken}.values())
    _check_taught(job, tasks[-1], [*train, *rehearsed])
    return _Stored(
        train=train,
        kept=tuple(image for image in job.exemplars if image.digest not in taken),
        rehearsed=rehearsed,
        tests=tests,
    )


def _check_taught(job: Job, new: Sequence[str], learned_from: Sequence[Image]) -> None:
    """Every class that is to be learned needs an image: the new ones, and for joint training all."""
    labels = {image.label for image in learned_from}
    if untaught := sorted(set(new) - labels):
        raise BatchInvalid(f"No training image is left of {', '.join(untaught)}: all are evaluation images.")
    if job.strategy.every_image and (gone := sorted(set(job.known) - labels)):
        raise BatchInvalid(
            f"{job.increment.strategy!r} learns every class anew, and no training image is left of {', '.join(gone)}: "
            "they were deleted, or the model's retention did not keep them. Choose another strategy."
        )


def _parent(job: Job, tools: Tools) -> Learned | None:
    if job.parent is None:
        return None
    folder = tools.folder / "parent"
    folder.mkdir()
    for name, file in job.parent.files.items():
        tools.blobs.fetch(file.sha256, folder / name)
    loaded = load_version(folder)
    return Learned(loaded.network, loaded.transform)
