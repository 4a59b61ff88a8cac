"""What the stages of an increment work with."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.maintenance.disposal import dispose
from storage.settings import Settings
from trainer.process.lines import LineReport
from trainer.process.retries import look, persist

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class AttemptContext:
    """What the stages work with."""

    database: Database
    blobs: BlobStore
    settings: Settings
    folder: Path  # scratch of this attempt
    report: LineReport

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
