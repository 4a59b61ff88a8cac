"""What a training process does, from its order to its exit status.

It reads the batch and the parent from storage, trains, and leaves in FOLDER either ``outcome.json`` and ``version/``
(exit 0) or ``failure.json`` (exit 3: it can never succeed). It writes to the database only what ingestion found, and
that only while its attempt still holds; publishing is the worker's.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from storage.blobs import open_blobs
from storage.database import Database
from storage.errors import AccreteError
from storage.leases import Claim
from storage.settings import Settings
from trainer.allowance import release_memory, shortage, yield_processor
from trainer.attempt import REFUSED
from trainer.reporting import LineReport

_PARENT_GONE = 77


def main() -> int:
    """Run one attempt; the exit status tells the worker how it ended."""
    increment_id, attempt, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    order = json.loads(sys.stdin.readline())
    settings = Settings.model_validate(order["settings"])
    yield_processor(settings.niceness)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Our standard output is the line to the worker: nothing else may write to it.
    report = LineReport(os.fdopen(os.dup(sys.stdout.fileno()), "w"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _run(Claim(increment_id, attempt), settings, folder, report, spawned_at=order["spawned_at"])
    except Exception as error:
        release_memory()
        reason = _reason(error, settings)
        if reason is None:
            raise
        (folder / "failure.json").write_text(json.dumps({"reason": reason}))
        return REFUSED
    return 0


def _end_with_parent() -> None:
    """Wait for the worker's end of our standard input to close: it died, and nobody would publish what we make."""
    sys.stdin.read()
    os._exit(_PARENT_GONE)


def _reason(error: Exception, settings: Settings) -> str | None:
    """Why another attempt would end the same way; None for what may be a passing fault."""
    from trainer.pace import LossNotFinite

    if (short := shortage(error, settings)) is not None:
        return short
    if isinstance(error, AccreteError):
        return error.detail
    if isinstance(error, LossNotFinite):
        return str(error)
    return None


def _run(claim: Claim, settings: Settings, folder: Path, report: LineReport, *, spawned_at: float) -> None:
    # Both import torch, which takes seconds in which the end of the worker is to be noticed already.
    from trainer import stages
    from trainer.job import read_job
    from trainer.tools import Tools

    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    job = read_job(database, claim)
    job.check_classes()
    report.seconds["queued"] = round(spawned_at - job.increment.created_at.timestamp(), 3)
    report.seconds["starting"] = round(time.time() - spawned_at, 3)
    outcome = stages.run(job, Tools(database, blobs, settings, folder, report))
    (folder / "outcome.json").write_text(json.dumps(outcome | {"seconds": report.seconds}))
