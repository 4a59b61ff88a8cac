"""The stages of an increment, in order: ingesting, loading, training, evaluating, writing."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as release_of
from pathlib import Path
from typing import Any

import torch

from storage import batches, images, leases
from storage.blobs import BlobStore
from storage.database import Database
from storage.domain import BatchStatus, Image, Split
from storage.errors import BatchInvalid, Invalid
from storage.publication import next_number
from storage.settings import Settings
from trainer import exemplars, metrics
from trainer.attempt import ClaimLost
from trainer.data import ImageSet, load
from trainer.increment import Architecture, Learned, head_rows, learn, logits_of
from trainer.ingestion import Ingested, ingest_archive, settle
from trainer.job import Job
from trainer.networks import load_version, write_version
from trainer.recipes import Recipe
from trainer.reporting import LineReport


@dataclass(frozen=True)
class Tools:
    """What the stages work with."""

    database: Database
    blobs: BlobStore
    settings: Settings
    folder: Path  # scratch of this attempt
    report: LineReport

    @property
    def threads(self) -> int:
        """Threads of training and of decoding; every processor unless set: serving goes first by its priority."""
        return self.settings.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Material:
    """What an increment learns from, and what it is measured on."""

    parent: Learned | None
    tasks: tuple[tuple[str, ...], ...]  # labels by task, the new one last
    train: ImageSet
    rehearsed: ImageSet | None  # the parent's exemplars that are still fit to learn from
    kept: tuple[Image, ...]  # the same as references, most wanted first within a class
    tests: tuple[ImageSet | None, ...]  # by task; None where the evaluation images are gone


def run(job: Job, tools: Tools) -> dict[str, Any]:
    """All stages; what `trainer.attempt` needs to publish, as JSON. ``version/`` in the folder holds the files."""
    torch.set_num_threads(tools.threads)
    report = tools.report
    recipe = Recipe.model_validate(job.increment.recipe)
    device = _device(tools.settings.device)
    with report.stage("ingesting"):
        job = _ingest(job, tools)
    with report.stage("loading"):
        material = _load(job, tools)
    with report.stage("training"):
        learned = learn(
            parent=material.parent,
            architecture=Architecture(job.model.network, job.model.image_size, job.model.channels),
            new_classes=len(material.tasks[-1]),
            images=material.train,
            exemplars=material.rehearsed,
            known_classes_in_batch=any(count.label in job.known for count in job.batch.classes),
            strategy=job.increment.strategy,
            recipe=recipe,
            weights_folder=tools.settings.weights_folder,
            device=device,
            report=report,
        )
    with report.stage("evaluating"):
        document = _evaluate(job, material, learned, tools)
    with report.stage("writing"):
        outcome = {
            "number": next_number(job.model),
            "parent": job.parent.number if job.parent else None,
            "tasks": material.tasks,
            "data_digest": job.batch.digest,
            "code_version": f"accrete {release_of('accrete')}, torch {torch.__version__}",
            "metrics": document,
        }
        execution = {"device": str(device), "threads": tools.threads}
        _write(job, learned, outcome | {"execution": execution}, tools)
    return outcome | {"exemplars": _choose_exemplars(job, material, recipe)}


def _ingest(job: Job, tools: Tools) -> Job:
    """Decode and split the batch, unless an earlier attempt has; checked against the head again with what is left."""
    batch = job.batch
    if batch.status is not BatchStatus.INGESTED:
        found = _found(job, tools)
        tools.blobs.sync()
        with tools.database.write() as connection:
            if not leases.holds(connection, job.claim):
                raise ClaimLost
            ingested = batches.record_ingestion(
                connection, batch.id, ingested=found.images, rejects=found.rejects, digest=found.digest
            )
            archive_needed = batch.archive is None or batches.archive_in_use(connection, batch.archive)
        if not archive_needed:
            tools.blobs.delete(str(batch.archive))
        batch = ingested
    job = replace(job, batch=batch)
    job.check_classes()
    return job


def _found(job: Job, tools: Tools) -> Ingested:
    if job.batch.archive is not None:
        return ingest_archive(
            job.batch,
            blobs=tools.blobs,
            settings=tools.settings,
            threads=tools.threads,
            folder=tools.folder,
            advanced=_steps(tools.report),
        )
    with tools.database.read() as connection:
        collected = images.of_batch(connection, job.batch.id)
    labels = {count.label for count in job.batch.classes}
    return settle(collected, job.batch.rejects, labels=labels, max_bad_share=tools.settings.max_bad_share)


def _load(job: Job, tools: Tools) -> Material:
    """Bring the parent, the batch, the exemplars and every task's evaluation images into memory."""
    new = tuple(sorted({count.label for count in job.batch.classes} - set(job.known)))
    tasks = (*(job.parent.tasks if job.parent else ()), new)
    classes = {label: index for index, label in enumerate(label for task in tasks for label in task)}
    with tools.database.read() as connection:
        train = images.of_batch(connection, job.batch.id, split=Split.TRAIN)
        # A class is measured on the images its first increment brought, whatever later batches hold of it.
        tests = [
            images.of_batch(connection, batch_id, split=Split.TEST, labels=set(task))
            for batch_id, task in zip((*job.test_batches, job.batch.id), tasks, strict=True)
        ]
    # What is measured on is never learned from, whichever batch or label it came with.
    measured = {image.digest for task in tests for image in task}
    train = tuple(image for image in train if image.digest not in measured)
    if untaught := sorted(set(new) - {image.label for image in train}):
        raise BatchInvalid(f"No training image is left of {', '.join(untaught)}: all are evaluation images.")
    excluded = measured | {image.digest for image in train}
    rehearsed = tuple(image for image in job.exemplars if image.digest not in excluded)

    def resident(stored: Sequence[Image]) -> ImageSet:
        return load(
            stored,
            read=tools.blobs.get,
            classes=classes,
            image_size=job.model.image_size,
            channels=job.model.channels,
            max_pixels=tools.settings.max_image_pixels,
            threads=tools.threads,
            advanced=lambda done: tools.report.progress(step=done, steps=len(stored)),
        )

    return Material(
        parent=_parent(job, tools),
        tasks=tasks,
        train=resident(train),
        rehearsed=resident(rehearsed) if rehearsed else None,
        kept=rehearsed,
        tests=tuple(resident(task) if task else None for task in tests),
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


def _evaluate(job: Job, material: Material, learned: Learned, tools: Tools) -> dict[str, Any]:
    """Every metric of the new version, on every task whose evaluation images are still there."""
    first, *others = [task for task in material.tests if task is not None]
    everything = sum(others, start=first)
    norms, biases = head_rows(learned.network)
    measurement = metrics.measure(
        logits=logits_of(learned, everything, report=tools.report).numpy(),
        targets=everything.targets.numpy(),
        task_sizes=learned.network.task_sizes,
        weight_norms=norms,
        biases=biases,
    )
    return metrics.document(job.documents, measurement, labels=[label for task in material.tasks for label in task])


def _write(job: Job, learned: Learned, outcome: Mapping[str, Any], tools: Tools) -> None:
    folder = tools.folder / "version"
    folder.mkdir()
    manifest = {
        "model": job.model.name,
        "version": outcome["number"],
        **{key: outcome[key] for key in ("parent", "tasks", "data_digest", "code_version", "execution", "metrics")},
        "increment": job.increment.id,
        "strategy": job.increment.strategy,
        "recipe": dict(job.increment.recipe),
    }
    write_version(folder, learned.network, transform=learned.transform, manifest=manifest)


def _choose_exemplars(job: Job, material: Material, recipe: Recipe) -> dict[str, tuple[str, ...]]:
    if job.model.memory is None:
        return {}
    labels = [label for task in material.tasks for label in task]
    candidates: dict[str, list[str]] = {}
    for image_id, target in zip(material.train.ids, material.train.targets.tolist(), strict=True):
        candidates.setdefault(labels[target], []).append(image_id)
    kept: dict[str, list[str]] = {}
    for image in material.kept:
        kept.setdefault(image.label, []).append(image.id)
    share = job.model.memory.share(len(labels))
    return exemplars.choose(candidates=candidates, kept=kept, share=share, seed=recipe.seed)


def _steps(report: LineReport) -> Callable[[int, int], None]:
    return lambda done, total: report.progress(step=done, steps=total)


def _device(wanted: str) -> torch.device:
    """The device a setting asks for; ``auto`` is the first GPU if there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise Invalid(f"ACCRETE_DEVICE is {wanted!r}, which cannot be used here: {error}") from error
