"""The run of a training process, from its order to its exit status.

It reads the batch and the parent from storage, trains, and leaves its result in the attempt's folder: a version and
its outcome, or the reason why it can never succeed (`trainer.process.protocol`). It writes only the results of
ingestion and packing to the database, and only while its claim holds. The worker publishes the version.
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
from trainer.process import editing, stages
from trainer.process.context import AttemptContext
from trainer.process.job import read_job
from trainer.process.lines import LineReport
from trainer.process.protocol import REFUSED, SUCCEEDED, WORKER_GONE, Failure, Order
from trainer.process.resources import release_memory, shortage
from trainer.reporting import LossNotFinite

_NAME_BYTES = 15  # of a process's name in Linux


def main(channel: socket.socket) -> int:
    """Run the attempt that the worker orders through a socket; the exit status says how it ended."""
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
    """End this process when the other end of the socket closes: the worker has died, and nobody would publish."""
    channel.recv(1)
    os._exit(WORKER_GONE)


def _reason(error: Exception, settings: Settings) -> str | None:
    """Why every other attempt would fail in the same way; None for an error that may be temporary."""
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
    made = stages.run(job, context) if job.increment.edit is None else editing.run(job, job.increment.edit, context)
    made.write(folder)


def _name_process(name: str) -> None:
    """Set the name of this process in `ps` and `top`, cut to the length that Linux permits."""
    Path("/proc/self/comm").write_text(name[:_NAME_BYTES])
