"""The stages of an increment, in order: ingesting, loading, training, evaluating, selecting, writing."""

from dataclasses import replace
from importlib.metadata import version as release_of

import torch
from sqlalchemy import Connection

from storage.domain import Batch, BatchStatus
from storage.material import batches, images, references
from storage.work import leases
from storage.work.leases import ClaimLost
from storage.work.publication import next_number
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.ingestion.archive import ingest_archive
from trainer.ingestion.splits import Ingested, settle
from trainer.learning import exemplars
from trainer.learning.compute import use_device
from trainer.learning.increment import Architecture, learn
from trainer.learning.learned import Learned, features_of
from trainer.learning.seeds import Seeds
from trainer.process.context import AttemptContext
from trainer.process.devices import chosen_device
from trainer.process.job import Job
from trainer.process.material import Material, gather, training_of
from trainer.process.pixels import PackingOvertaken
from trainer.process.protocol import Made
from trainer.process.resources import bound_memory
from trainer.process.resumption import Resumption, find
from trainer.process.writing import write, write_evaluations
from trainer.recipes import Recipe


def run(job: Job, context: AttemptContext) -> Made:
    """Run all stages; returns what the worker needs to publish, beside the version's files in the folder."""
    report = context.report
    recipe = Recipe.model_validate(job.increment.recipe)
    device = chosen_device(context.settings.device)
    use_device(device)
    with report.opaque():
        earlier = find(job, context, device)
    torch.set_num_threads(earlier.threads if earlier is not None else context.threads)
    bound_memory(context.settings, device=device)
    with report.stage("ingesting"):
        job = _ingest(job, context)
    with report.stage("loading"):
        material = gather(job, recipe, context, device=device)
    checkpoints = Resumption(job, context, earlier, training_of(job, material))
    with report.stage("training", resumed_from_epoch=checkpoints.epoch or None):
        learned = learn(
            parent=material.parent,
            architecture=Architecture(job.model.network, job.model.image_size, job.model.channels),
            new_classes=material.new_classes,
            images=material.train,
            exemplars=material.rehearsed,
            strategy=job.increment.strategy,
            recipe=recipe,
            t=len(job.line),
            weights_folder=context.settings.weights_folder,
            device=device,
            report=report,
            checkpoints=checkpoints,
        )
    with report.stage("evaluating"):
        evaluation = _evaluate(job, material, learned, context)
    with report.stage("selecting"):
        selected = _select_exemplars(job, material, learned, recipe, context)
    with report.stage("writing"):
        assert job.batch.digest is not None  # every ingested batch has one
        made = Made(
            number=next_number(job.model),
            parent=job.parent.number if job.parent else None,
            tasks=material.tasks,
            data_digest=job.batch.digest,
            code_version=f"accrete {release_of('accrete')}, torch {torch.__version__}",
            metrics=evaluation.document,
            exemplars=selected,
            seconds={},
        )
        assert learned.execution is not None  # None only for a version that was loaded
        write(
            job,
            learned,
            made,
            context,
            measured=material.measured,
            shown=material.shown,
            execution=learned.execution.to_json(),
        )
        write_evaluations(made, material.measured, evaluation.logits, context)
    return replace(made, seconds=report.seconds)


def _ingest(job: Job, context: AttemptContext) -> Job:
    """Decode and split the batch, unless an earlier attempt has; then check its remaining classes against the head."""
    batch = job.batch
    if batch.status is not BatchStatus.INGESTED:
        unpacked = _unpacked(job, context) if batch.archive is not None else None
        with context.report.opaque():
            context.blobs.sync()
            batch = context.write(lambda connection: _record(connection, job, unpacked, context))
        context.dispose()
    job = replace(job, uploaded=batch)
    job.check_classes()
    return job


def _record(connection: Connection, job: Job, unpacked: Ingested | None, context: AttemptContext) -> Batch:
    if not leases.holds(connection, job.claim):
        raise ClaimLost
    batch = batches.get(connection, job.batch.id)
    if batch.status is BatchStatus.INGESTED:  # this transaction ran before, and its answer was lost
        return batch
    found = unpacked or _collected(connection, job, context)
    shards = {image.shard for image in found.images if image.shard is not None}
    if deleted := references.keep(connection, shards, exists=context.blobs.exists):
        raise PackingOvertaken(f"shard {deleted[0]} was deleted as that of equal images while it was written")
    return batches.record_ingestion(
        connection,
        job.batch.id,
        ingested=found.images,
        rejects=found.rejects,
        digest=found.digest,
        written=found.packs,
    )


def _unpacked(job: Job, context: AttemptContext) -> Ingested:
    return ingest_archive(
        job.batch,
        blobs=context.blobs,
        settings=context.settings,
        processes=context.threads,
        form=job.form,
        folder=context.folder,
        report=context.report,
    )


def _collected(connection: Connection, job: Job, context: AttemptContext) -> Ingested:
    """The images of a batch that was sent image by image, read under the lock: no image that was erased comes back."""
    stored = images.of_batch(connection, job.batch.id)
    labels = {count.label for count in job.batch.classes}
    limit = context.settings.max_bad_share
    return settle(stored, (), labels=labels, max_bad_share=limit, names=job.model.names)


def _evaluate(job: Job, material: Material, learned: Learned, context: AttemptContext) -> Evaluation:
    """Every metric of the new version, on every task whose evaluation images are still there."""
    labels = [label for task in material.tasks for label in task]
    return evaluate(learned, material.measured, ancestors=job.documents, labels=labels, report=context.report)


def _select_exemplars(
    job: Job, material: Material, learned: Learned, recipe: Recipe, context: AttemptContext
) -> dict[str, tuple[str, ...]]:
    """The new version's exemplars: image ids by label, most wanted first."""
    if job.model.memory is None:
        return {}
    labels = [label for task in material.tasks for label in task]
    chosen = exemplars.choose(
        candidates=material.train,
        kept=material.kept,
        share=job.model.memory.share(len(labels)),
        selection=recipe.exemplar_selection,
        seed=Seeds(recipe.seed, len(job.line)).of("exemplars"),
        features=lambda images: features_of(learned, images, report=context.report),
    )
    return {labels[target]: ids for target, ids in chosen.items()}
