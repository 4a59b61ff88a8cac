"""What people and workers do to a database, in one line each, so that a test can tell a story."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Barrier, get_ident
from typing import Any, TypeVar

from sqlalchemy import Engine, event, func, select

from storage.database.engine import Database
from storage.database.tables import metadata
from storage.domain import (
    Attempt,
    Batch,
    ClassCount,
    Image,
    Increment,
    IncrementStatus,
    KnownClasses,
    Memory,
    Model,
    Promotion,
    Retention,
    Split,
    StoredFile,
    new_id,
)
from storage.history import models, versions
from storage.material import batches, images, references
from storage.work import events, increments, leases, publication, reports
from storage.work.leases import Claim
from storage.work.publication import Outcome, Published

LEASE_SECONDS = 60.0
MAX_CRASHES = 3
Answer = TypeVar("Answer")


def sha256(text: str) -> str:
    """A digest that stands for some bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def counts(*labels: str, train: int = 4, test: int = 2) -> tuple[ClassCount, ...]:
    """So many images of each class."""
    return tuple(ClassCount(label, train=train, test=test) for label in labels)


def together(*calls: Callable[[], Answer]) -> list[Answer]:
    """Answers of calls that begin at the same moment, each in a thread of its own."""
    barrier = Barrier(len(calls))

    def begin(call: Callable[[], Answer]) -> Answer:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


@contextmanager
def statements() -> Iterator[list[str]]:
    """What this thread sends to databases meanwhile, but for the beginnings of transactions."""
    sent: list[str] = []
    here = get_ident()  # the process may have services of other tests, which look at their databases all the time

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if get_ident() == here and not statement.startswith("BEGIN"):
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@dataclass(frozen=True)
class World:
    """A database; every method is one transaction of what its name says."""

    database: Database

    def write(self, call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        """What a function of a repository answers in a transaction of its own."""
        with self.database.write() as connection:
            return call(connection, *arguments, **options)

    def read(self, call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        """What a function of a repository finds."""
        with self.database.read() as connection:
            return call(connection, *arguments, **options)

    def released(self) -> set[str]:
        """Digests of the blobs that were let go of."""
        return set(self.read(references.waiting, limit=100_000))

    def rows(self) -> dict[str, int]:
        """Number of rows of each table."""
        with self.database.read() as connection:
            return {
                table.name: connection.scalar(select(func.count()).select_from(table)) or 0
                for table in metadata.sorted_tables
            }

    def create(
        self,
        name: str = "plants",
        *,
        memory: Memory | None = None,
        retention: Retention = Retention.ALL,
        recipe: Mapping[str, Any] | None = None,
    ) -> Model:
        """A model without versions."""
        settings = {"network": "resnet32", "image_size": 32, "channels": 3, "strategy": "lwf"}
        options = settings | {"recipe": recipe or {}, "memory": memory, "retention": retention}
        return self.write(models.create, name=name, **options)

    def model(self, name: str = "plants") -> Model:
        """The model as it is now."""
        return self.read(models.get, name)

    def upload(self, model: Model, *labels: str, content: str | None = None) -> Batch:
        """A closed batch from an archive; ``content`` stands for its bytes."""
        digest = sha256(content if content is not None else new_id())
        found = counts(*labels)
        return self.write(batches.create, model_id=model.id, archive=digest, archive_kind="zip", classes=found)

    def request(
        self,
        model: Model,
        batch: Batch,
        *,
        strategy: str = "lwf",
        promote: Promotion = Promotion.AUTO,
        known_classes: KnownClasses = KnownClasses.REFUSE,
        idempotency_key: str | None = None,
    ) -> Increment:
        """A queued increment of a batch."""
        with self.database.write() as connection:
            return increments.request(
                connection,
                model=models.lock(connection, model.name),
                batch_id=batch.id,
                strategy=strategy,
                recipe={"epochs": 2},
                rehearses=model.memory is not None,
                promote=promote,
                known_classes=known_classes,
                idempotency_key=idempotency_key,
            )

    def push(self, model: Model, *labels: str, **options: Any) -> Increment:
        """A queued increment of a fresh upload."""
        return self.request(model, self.upload(model, *labels), **options)

    def look(self, increment_id: str) -> Increment:
        """The increment as it is now."""
        return self.read(increments.get, increment_id)

    def attempts(self, increment_id: str) -> tuple[Attempt, ...]:
        """Every try at an increment, first to last."""
        return self.read(reports.get, increment_id).attempts

    def increments(self, model: Model) -> list[Increment]:
        """A model's increments, latest arrival first."""
        return [report.increment for report in self.read(reports.page, model, limit=1000, cursor=None).items]

    def retry(self, increment: Increment, model: Model) -> Increment:
        """Queue it once more."""
        with self.database.write() as connection:
            rehearses = model.memory is not None
            locked = models.lock(connection, model.name)
            return increments.retry(connection, increment.id, model=locked, rehearses=rehearses)

    def claim(self, worker: str = "worker", *, lease_seconds: float = LEASE_SECONDS) -> Claim | None:
        """What the worker gets to do; a lease of less than nothing has run out already."""
        return self.write(leases.claim, worker=worker, lease_seconds=lease_seconds, max_crashes=MAX_CRASHES)

    def must_claim(self, worker: str = "worker", *, lease_seconds: float = LEASE_SECONDS) -> Claim:
        """The same where there is something to do."""
        claim = self.claim(worker, lease_seconds=lease_seconds)
        assert claim is not None
        return claim

    def end(self, claim: Claim, status: IncrementStatus = IncrementStatus.FAILED) -> bool:
        """Whether the claim still stood to end its increment."""
        return self.write(leases.end, claim, status, reason="why")

    def outcomes(self, increment_id: str) -> list[tuple[int, str, str | None]]:
        """Number, worker and outcome of every attempt."""
        tries = self.attempts(increment_id)
        assert all((one.finished_at is None) == (one.outcome is None) for one in tries)
        return [(one.attempt, one.worker, one.outcome) for one in tries]

    def statuses(self, increment_id: str) -> list[str]:
        """Every status the increment has had, as its events tell."""
        steps = self.read(events.after, increment_id, 0)
        assert [step.sequence for step in steps] == list(range(1, len(steps) + 1))
        return [step.data["status"] for step in steps if step.kind == "status"]

    def ingest(self, batch_id: str) -> tuple[Image, ...]:
        """Turn the counts of a batch into images, and return them as `images.of_batch` does."""
        batch = self.read(batches.get, batch_id)
        found = [
            Image(
                new_id(),
                batch_id,
                count.label,
                f"{split}-{n}.png",
                sha256(f"{batch_id}{count.label}{split}{n}"),
                9,
                split,
            )
            for count in batch.classes
            for split, number in ((Split.TRAIN, count.train), (Split.TEST, count.test))
            for n in range(number)
        ]
        self.write(batches.record_ingestion, batch_id, ingested=found, rejects=(), digest=sha256(batch_id))
        return self.read(images.of_batch, batch_id)

    def outcome(self, claim: Claim, *, exemplars: Mapping[str, Sequence[str]] | None = None) -> Outcome:
        """What an attempt that began now would bring forth."""
        increment = self.look(claim.increment_id)
        with self.database.read() as connection:
            model = models.by_id(connection, increment.model_id)
            line = versions.lineage(connection, model, model.head)
            batch = batches.get(connection, increment.batch)
        known = line[-1].tasks if line else ()
        new = sorted({count.label for count in batch.classes} - {label for task in known for label in task})
        number = publication.next_number(model)
        return Outcome(
            number=number,
            parent=model.head,
            tasks=[*known, *([new] if new else [])],
            files={
                name: StoredFile(sha256(f"{model.id}{number}{name}"), 10)
                for name in ("version.json", "weights.safetensors")
            },
            data_digest=sha256(batch.id),
            code_version="accrete 0, torch 0",
            seconds={"training": 1.5},
            metrics={"tag": {"accuracy": [1.0] * (len(known) + bool(new))}},
            exemplars=exemplars or {},
        )

    def publish(self, claim: Claim, outcome: Outcome) -> Published | None:
        """Make it a version."""
        return self.write(publication.publish, claim, outcome)

    def learn(
        self, model: Model, *labels: str, promote: Promotion = Promotion.AUTO, kept: int = 0, **options: Any
    ) -> Published:
        """An increment from the upload to its version, with so many exemplars a class of the batch."""
        pushed = self.push(model, *labels, promote=promote, **options)
        claim = self.must_claim()
        assert claim.increment_id == pushed.id
        stored = self.ingest(pushed.batch)
        chosen = {
            label: [image.id for image in stored if image.label == label and image.split is Split.TRAIN][:kept]
            for label in labels
        }
        published = self.publish(claim, replace(self.outcome(claim), exemplars=chosen))
        assert published is not None
        return published
