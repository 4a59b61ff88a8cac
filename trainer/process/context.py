"""What the stages of an increment work with."""

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
    """A report of an attempt: stages, checkpoints and notes besides what learning tells."""

    @property
    def seconds(self) -> dict[str, float]:
        """How long each stage took that has ended."""

    def stage(self, name: StageName, *, resumed_from_epoch: int | None = None) -> AbstractContextManager[None]:
        """Work on one stage."""

    def checkpoint(self, *, epoch: int) -> None:
        """Say that the checkpoint of an epoch lies in the folder."""

    def note(self, text: str) -> None:
        """Say something for the worker's log."""


@dataclass(frozen=True)
class AttemptContext:
    """What the stages work with."""

    database: Database
    blobs: BlobStore
    settings: Settings
    folder: Path  # scratch of this attempt
    report: StageReport

    @property
    def threads(self) -> int:
        """Threads of training, processes of decoding: every processor unless set, as serving goes first by priority."""
        return self.settings.threads or len(os.sched_getaffinity(0))

    def read(self, call: Callable[[Connection], Answer]) -> Answer:
        """What a transaction finds; a database that is away is waited for."""
        return look(self.database, call, waiting=self.report.alive)

    def write(self, call: Callable[[Connection], Answer]) -> Answer:
        """The answer of a transaction that writes; it may be run more than once."""
        return persist(self.database, call, waiting=self.report.alive)

    def dispose(self) -> None:
        """Delete what was let go of, as far as that can be done now; the rest is the worker's sweep's."""
        try:
            dispose(database=self.database, blobs=self.blobs, scratch=self.folder)
        except Exception:
            log.exception("blobs that were let go of are not deleted yet")
