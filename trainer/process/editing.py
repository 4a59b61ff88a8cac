"""The stages of an edit: the parent is loaded, its classes are dropped or merged, and the result is evaluated."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version as release_of
from itertools import chain, zip_longest

import torch

from storage.domain import Edit, EditedTasks, Version
from storage.history import evaluation, metrics
from storage.history.lineage import in_present_tasks
from storage.work import editing
from storage.work.publication import next_number
from trainer.evaluation.evaluate import evaluate
from trainer.learning.compute import use_device
from trainer.learning.data import ImageSet
from trainer.learning.learned import Learned
from trainer.networks.editing import edited
from trainer.networks.manifest import MANIFEST
from trainer.process import pixels
from trainer.process.context import AttemptContext
from trainer.process.devices import chosen_device
from trainer.process.job import Job
from trainer.process.material import cut, parent_of
from trainer.process.protocol import Made
from trainer.process.resources import bound_memory
from trainer.process.writing import write, write_evaluations


def run(job: Job, edit: Edit, context: AttemptContext) -> Made:
    """Make a version without training; returns what the worker needs to publish it."""
    report = context.report
    device = chosen_device(context.settings.device)
    use_device(device)
    torch.set_num_threads(context.threads)
    bound_memory(context.settings, device=device)
    assert job.parent is not None  # a model without a head has nothing to edit, and a head is not deleted
    applied = editing.applied(edit, job.parent, names=job.model.names)
    labels = [label for task in applied.tasks for label in task]
    line = (*job.line, _made_of(job.parent, edit, applied))
    documents = context.read(lambda connection: metrics.of_versions(connection, job.line))
    with report.stage("loading"):
        parent = parent_of(job, context, device)
        assert parent is not None
        measured, kept = _images(job, line, context)
        learned = Learned(edited(parent.network, _places(job, applied)).eval(), parent.transform)
    with report.stage("evaluating"):
        found = evaluate(learned, measured, ancestors=in_present_tasks(line, documents), labels=labels, report=report)
    with report.stage("writing"):
        made = Made(
            number=next_number(job.model),
            parent=job.parent.number,
            tasks=applied.tasks,
            data_digest=job.parent.data_digest,
            code_version=f"accrete {release_of('accrete')}, torch {torch.__version__}",
            metrics=found.document,
            exemplars=_exemplars(job, applied),
            seconds={},
        )
        execution = json.loads((context.folder / "parent" / MANIFEST).read_text())["execution"]
        write(job, learned, made, context, measured=measured, shown=kept, execution=execution)
        write_evaluations(made, measured, found.logits, context)
    return replace(made, seconds=report.seconds)


def _made_of(parent: Version, edit: Edit, applied: EditedTasks) -> Version:
    """The version that the edit makes, as far as its place in the line is concerned."""
    document = {**edit.to_json(), "tasks": list(applied.origins)}
    return replace(parent, parent=parent.number, tasks=applied.tasks, edit=document, merged=edit.merged(parent.merged))


def _images(job: Job, line: Sequence[Version], context: AttemptContext) -> tuple[ImageSet, ImageSet | None]:
    """The evaluation images, and, where a graph in int8 is to be scaled, the exemplars."""
    tests = context.read(lambda connection: evaluation.of_tasks(connection, line, job.batch_of))
    known = line[-1].classes
    held = evaluation.as_known(job.exemplars, line[-1].merged) if context.settings.int8 else ()
    groups = [tuple(chain.from_iterable(tests)), tuple(image for image in held if image.label in known)]
    pool = pixels.pool(list(chain.from_iterable(groups)), form=job.form, claim=job.claim, context=context)
    measured, kept = cut(pool, groups, {label: place for place, label in enumerate(known)})
    nothing = ImageSet(pool, torch.empty(0, dtype=torch.int64), (), torch.empty(0, dtype=torch.int64))
    return (nothing if measured is None else measured), kept


def _places(job: Job, applied: EditedTasks) -> list[list[list[int]]]:
    """By task and class after the edit, the places of its classes among the parent's logits."""
    place = {label: index for index, label in enumerate(job.known)}
    return [[[place[member] for member in applied.members[label]] for label in task] for task in applied.tasks]


def _exemplars(job: Job, applied: EditedTasks) -> dict[str, tuple[str, ...]]:
    """The parent's exemplars by class, most wanted first; of merged classes in turn, as many as a class may have."""
    if job.model.memory is None:
        return {}
    share = job.model.memory.share(len(applied.members))
    chosen: dict[str, tuple[str, ...]] = {}
    for label, members in applied.members.items():
        of_members = [[image.id for image in job.exemplars if image.label == member] for member in members]
        in_turn = (image for rank in zip_longest(*of_members) for image in rank if image is not None)
        chosen[label] = tuple(in_turn)[:share]
    return chosen
