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
        """Threads of training, processes of decoding: every processor unless set, as serving goes first by priority."""
        return self.settings.threads or len(os.sched_getaffinity(0))
