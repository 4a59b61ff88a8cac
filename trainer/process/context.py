"""The context of an attempt: the storage, settings and report that its stages use."""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.maintenance.disposal import dispose
from storage.settings import Settings
from trainer.process.protocol import StageName
from trainer.process.retries import look, persist
from trainer.reporting import Report

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class StageReport(Report, Protocol):
    """A report of an attempt: stages, checkpoints and notes, beside the progress of learning."""

    @property
    def seconds(self) -> dict[str, float]:
        """Duration of each stage that has ended, in seconds."""

    def stage(self, name: StageName, *, resumed_from_epoch: int | None = None) -> AbstractContextManager[None]:
        """Work on one stage."""

    def checkpoint(self, *, epoch: int) -> None:
        """Report that the checkpoint of an epoch is in the folder."""

    def note(self, text: str) -> None:
        """Write a text to the worker's log."""


@dataclass(frozen=True)
class AttemptContext:
    """Database, blob store, settings, folder and report of an attempt."""

    database: Database
    blobs: BlobStore
    settings: Settings
    folder: Path  # scratch of this attempt
    report: StageReport

    @property
    def threads(self) -> int:
        """Threads for training and processes for decoding: the setting, or all processors, as serving has priority."""
        return self.settings.threads or len(os.sched_getaffinity(0))

    def read(self, call: Callable[[Connection], Answer]) -> Answer:
        """The answer of a transaction that reads; waits while the database is away."""
        return look(self.database, call, waiting=self.report.alive)

    def write(self, call: Callable[[Connection], Answer]) -> Answer:
        """The answer of a transaction that writes; waits while the database is away, and may run ``call`` again."""
        return persist(self.database, call, waiting=self.report.alive)

    def dispose(self) -> None:
        """Delete the released blobs; the worker's sweep deletes later those that cannot be deleted now."""
        try:
            dispose(database=self.database, blobs=self.blobs, scratch=self.folder)
        except Exception:
            log.exception("blobs that were let go of are not deleted yet")
