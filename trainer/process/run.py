"""What a training process does, from its order to its exit status.

It reads the batch and the parent from storage, trains, and leaves in its folder what `trainer.process.protocol` says:
a version and what was made, or why it can never succeed. It writes to the database only what ingestion found, and
that only while its attempt still holds; publishing is the worker's.
"""

import os
import socket
import threading
import time
from pathlib import Path

from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.errors import AccreteError
from storage.settings import Settings
from storage.work.leases import Claim
from trainer.evaluation.evaluate import BelowChance
from trainer.process import stages
from trainer.process.context import AttemptContext
from trainer.process.job import read_job
from trainer.process.lines import LineReport
from trainer.process.protocol import REFUSED, SUCCEEDED, WORKER_GONE, Failure, Order
from trainer.process.resources import release_memory, shortage
from trainer.reporting import LossNotFinite

_NAME_BYTES = 15  # of what Linux calls a process


def main(channel: socket.socket) -> int:
    """Run the attempt that the worker orders through a socket; the exit status tells it how that ended."""
    with channel.makefile("rb") as lines:
        order = Order.decode(lines.readline())
    claim, folder = Claim(order.increment, order.attempt), Path(order.folder)
    _name_process(f"train {claim.increment_id}")
    settings = Settings.model_validate(order.settings)
    threading.Thread(target=_end_with_worker, args=[channel], daemon=True).start()
    report = LineReport(channel.makefile("w", encoding="utf-8"))
    try:
        _run(claim, settings, folder, report, spawned_at=order.spawned_at)
    except Exception as error:
        release_memory()
        reason = _reason(error, settings)
        if reason is None:
            raise
        Failure(reason).write(folder)
        return REFUSED
    return SUCCEEDED


def _end_with_worker(channel: socket.socket) -> None:
    """Wait for the other end of the socket to close: the worker died, and nobody would publish what we make."""
    channel.recv(1)
    os._exit(WORKER_GONE)


def _reason(error: Exception, settings: Settings) -> str | None:
    """Why another attempt would end the same way; None for what may be a passing fault."""
    if (short := shortage(error, settings)) is not None:
        return short
    if isinstance(error, AccreteError):
        return error.detail
    if isinstance(error, (LossNotFinite, BelowChance)):
        return str(error)
    return None


def _run(claim: Claim, settings: Settings, folder: Path, report: LineReport, *, spawned_at: float) -> None:
    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    context = AttemptContext(database, blobs, settings, folder, report)
    job = context.read(lambda connection: read_job(connection, claim))
    job.check_classes()
    report.seconds["queued"] = round(spawned_at - job.increment.created_at.timestamp(), 3)
    report.seconds["starting"] = round(time.time() - spawned_at, 3)
    stages.run(job, context).write(folder)


def _name_process(name: str) -> None:
    """What `ps` and `top` are to call this process; cut to what Linux takes."""
    Path("/proc/self/comm").write_text(name[:_NAME_BYTES])
