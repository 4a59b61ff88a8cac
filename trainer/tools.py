"""What the stages of an increment work with."""

import os
from dataclasses import dataclass
from pathlib import Path

from storage.blobs import BlobStore
from storage.database import Database
from storage.settings import Settings
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
