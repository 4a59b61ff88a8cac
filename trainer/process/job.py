"""The job of an attempt: all that the database holds about its increment when the attempt begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection

from losses.strategies import Strategy
from losses.strategies import get as strategy_named
from storage.domain import Batch, Image, Increment, Model, Version
from storage.history import metrics, models, versions
from storage.material import batches, exemplars
from storage.work import increments
from storage.work.admission import check_classes
from storage.work.leases import Claim
from trainer.networks.pictures import Form


@dataclass(frozen=True)
class Job:
    """An increment with its model, its batch and its parent."""

    claim: Claim
    increment: Increment
    model: Model
    batch: Batch
    line: tuple[Version, ...]  # the parent's line of ancestors, the parent last
    documents: tuple[Mapping[str, Any], ...]  # metrics of the versions in ``line``
    old_batches: tuple[Batch, ...]  # of the versions in ``line``, in the same order
    exemplars: tuple[Image, ...]  # of the parent
    stored: frozenset[str]  # classes of which old batches still have training images

    @property
    def known(self) -> tuple[str, ...]:
        """Classes of the parent, in the order of its logits."""
        return self.line[-1].classes if self.line else ()

    def check_classes(self) -> None:
        """Raise an error with the reason if the batch, as it is now, cannot be learned on top of the parent."""
        check_classes(
            batch=self.batch.classes,
            known=self.known,
            policy=self.increment.known_classes,
            has_memory=self._has_places or self.strategy.every_image,
            stored=self.stored,
            names=self.model.names,
        )

    @property
    def _has_places(self) -> bool:
        """Whether the memory has a place for each class of the parent."""
        memory = self.model.memory
        return memory is not None and bool(self.known) and memory.share(len(self.known)) > 0

    @property
    def task_batches(self) -> tuple[Batch, ...]:
        """The batch of each old task, which also fixed the evaluation set; batches that added no task are left out."""
        tasks = [0, *(len(version.tasks) for version in self.line)]
        came = zip(self.old_batches, pairwise(tasks), strict=True)
        return tuple(batch for batch, (before, after) in came if after > before)

    @property
    def strategy(self) -> Strategy:
        """The strategy of the increment."""
        return strategy_named(self.increment.strategy)

    @property
    def form(self) -> Form:
        """Channels and size of the images in training."""
        return Form(channels=self.model.channels, image_size=self.model.image_size)

    @property
    def parent(self) -> Version | None:
        """The version to start from; None for a model's first increment."""
        return self.line[-1] if self.line else None


def read_job(connection: Connection, claim: Claim) -> Job:
    """Read the job in one consistent view; the parent is the model's head as it was when the increment was claimed."""
    increment = increments.get(connection, claim.increment_id)
    model = models.by_id(connection, increment.model_id)
    line = versions.lineage(connection, model, increment.parent)
    kept = (
        exemplars.of_version(connection, model_id=model.id, version=line[-1].number)
        if line and model.memory is not None
        else ()
    )
    of_line = batches.of_increments(connection, [ancestor.increment_id for ancestor in line])
    return Job(
        claim=claim,
        increment=increment,
        model=model,
        batch=batches.get(connection, increment.batch_id),
        line=line,
        documents=metrics.of_versions(connection, line),
        old_batches=tuple(of_line[ancestor.increment_id] for ancestor in line),
        exemplars=kept,
        stored=increments.taught_classes(connection, line),
    )
