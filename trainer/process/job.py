"""The job of an attempt: all that the database holds about its increment when the attempt begins."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from losses.strategies import Strategy
from losses.strategies import get as strategy_named
from storage.domain import Batch, ClassCount, Image, Increment, Model, Version
from storage.history import metrics, models, versions
from storage.history.lineage import in_present_tasks
from storage.material import batches, exemplars
from storage.work import editing, increments
from storage.work.admission import check_classes
from storage.work.leases import Claim
from trainer.networks.pictures import Form


@dataclass(frozen=True)
class Job:
    """An increment with its model, its batch and its parent."""

    claim: Claim
    increment: Increment
    model: Model
    uploaded: Batch | None  # None for an edit
    line: tuple[Version, ...]  # the parent's line of ancestors, the parent last
    documents: tuple[Mapping[str, Any], ...]  # metrics of the versions in ``line``, of the tasks that the parent has
    batch_of: Mapping[str, Batch]  # by id of the increment, of the versions in ``line`` that learned from one
    exemplars: tuple[Image, ...]  # of the parent
    stored: frozenset[str]  # classes of which old batches still have training images

    @property
    def batch(self) -> Batch:
        """The batch to learn from; an edit has none."""
        assert self.uploaded is not None
        return self.uploaded

    @property
    def old_batches(self) -> tuple[Batch, ...]:
        """The batches that the versions in ``line`` learned from, oldest first."""
        found = (self.batch_of.get(version.increment_id) for version in self.line)
        return tuple(batch for batch in found if batch is not None)

    @property
    def merged(self) -> Mapping[str, str]:
        """Classes of images that were sent as others, which an edit merged into them."""
        return self.parent.merged if self.parent is not None else {}

    @property
    def counts(self) -> list[ClassCount]:
        """Images of each class of the batch, as the parent knows the classes."""
        return [replace(count, label=self.merged.get(count.label, count.label)) for count in self.batch.classes]

    @property
    def known(self) -> tuple[str, ...]:
        """Classes of the parent, in the order of its logits."""
        return self.line[-1].classes if self.line else ()

    def check_classes(self) -> None:
        """Raise an error with the reason if the batch or edit, as it is now, does not fit the parent."""
        if self.increment.edit is not None:
            assert self.parent is not None  # versions are deleted only while they are not the head
            editing.applied(self.increment.edit, self.parent, names=self.model.names)
            return
        check_classes(
            batch=self.counts,
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
        exemplars.of_version(connection, model_id=model.id, version=line[-1].number, merged=line[-1].merged)
        if line and model.memory is not None
        else ()
    )
    of_line = batches.of_increments(connection, [ancestor.increment_id for ancestor in line])
    return Job(
        claim=claim,
        increment=increment,
        model=model,
        uploaded=batches.get(connection, increment.batch_id) if increment.batch_id is not None else None,
        line=line,
        documents=tuple(in_present_tasks(line, metrics.of_versions(connection, line))),
        batch_of=of_line,
        exemplars=kept,
        stored=increments.taught_classes(connection, line),
    )
