"""One attempt at an increment, on the worker's side: a child process trains, and the worker records the result."""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import IncrementStatus, StoredFile
from storage.errors import BlobMissing
from storage.maintenance.disposal import dispose
from storage.material import references
from storage.settings import Settings
from storage.work import leases
from storage.work.leases import Claim, ClaimLost
from storage.work.publication import Outcome, Published, publish
from trainer.process.protocol import (
    REFUSED,
    SUCCEEDED,
    VERSION,
    CheckpointLeft,
    EpochDone,
    Failure,
    Made,
    Note,
    ProgressMade,
    StageBegun,
    StageName,
)
from trainer.workers.checkpoint_upload import CheckpointUpload
from trainer.workers.child import Child, Unintelligible
from trainer.workers.forkserver import ForkServer
from trainer.workers.recording import TICK_SECONDS, AttemptRecorder, Cancelled, DatabaseAway

STOP_SECONDS = 2.0  # a worker that shuts down still waits so long for the last writes of an attempt

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Stopping(Exception):
    """This worker shuts down."""


class Silent(Exception):
    """The training process or the blob store gives no sign of life."""


class StopDeadline:
    """A deadline for the last writes of an attempt, ``STOP_SECONDS`` after the worker begins to shut down."""

    def __init__(self, stopping: threading.Event) -> None:
        """There is no deadline until ``stopping`` is set."""
        self._stopping = stopping
        self._deadline = float("inf")

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        if self._stopping.is_set():
            self._deadline = min(self._deadline, time.monotonic() + STOP_SECONDS)
        return time.monotonic() >= self._deadline


@dataclass(frozen=True)
class Attempt:
    """The claim of an attempt, with all that its steps use."""

    claim: Claim
    folder: Path
    recorder: AttemptRecorder
    settings: Settings
    database: Database
    blobs: BlobStore
    stopping: threading.Event

    def close(self, write: Callable[[Connection], Answer]) -> Answer:
        """Run the transaction that ends the attempt; its answer.

        Waits while the database is away; raises `DatabaseAway` when the worker has to end.
        """
        patience = StopDeadline(self.stopping)
        return self.recorder.close(write, may_wait=lambda: not patience.is_over)


def run_attempt(
    claim: Claim,
    *,
    server: ForkServer,
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    stopping: threading.Event,
) -> None:
    """Train in a child process and publish the version; on return the increment's row has the result.

    The result is one of: published, failed, cancelled, or queued again (after a crash or a shutdown). If the claim is
    lost, nothing is recorded. The attempt goes on while the database is away; if the worker ends meanwhile, the lease
    runs out.
    """
    folder = scratch_folder(settings, claim)
    try:
        for left_behind in settings.scratch.glob(f"{claim.increment_id}-*"):  # by attempts that were killed
            shutil.rmtree(left_behind, ignore_errors=True)
        with AttemptRecorder(claim, database=database, settings=settings) as recorder:
            _run(Attempt(claim, folder, recorder, settings, database, blobs, stopping), server)
    except DatabaseAway:
        log.warning("increment %s: attempt %d is left to its lease: no database", claim.increment_id, claim.attempt)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch_folder(settings: Settings, claim: Claim) -> Path:
    """Where an attempt keeps its unfinished work."""
    return settings.scratch / f"{claim.increment_id}-{claim.attempt}"


def _run(attempt: Attempt, server: ForkServer) -> None:
    claim = attempt.claim
    try:
        attempt.folder.mkdir(parents=True)
        with CheckpointUpload(claim, attempt.folder, database=attempt.database, blobs=attempt.blobs) as kept:
            with Child(server, claim, attempt.settings, attempt.folder) as child:
                ended = _watch(child, kept, attempt)
            _conclude(attempt, *ended)
    except ClaimLost:
        log.warning("increment %s: attempt %d lost its claim", claim.increment_id, claim.attempt)
    except Cancelled:
        attempt.close(lambda connection: leases.end(connection, claim, IncrementStatus.CANCELLED))
    except Stopping:
        _give_back(attempt, reason="the worker was shut down", crashed=False)
    except DatabaseAway:
        raise
    except (Silent, Unintelligible) as error:
        _give_back(attempt, reason=str(error), crashed=True)
    except Exception as error:  # such as a full disk or a store that is away: counts as a crash, with its reason
        log.exception("increment %s: attempt %d failed in the worker", claim.increment_id, claim.attempt)
        _give_back(attempt, reason=f"the worker could not go on ({type(error).__name__}: {error})", crashed=True)


def _watch(child: Child, kept: CheckpointUpload, attempt: Attempt) -> tuple[int, str]:
    """Handle the child's messages until it ends; its exit status and the end of its error output.

    After a crash, waits until the last checkpoint is stored, so that the next attempt can go on from it. Raises
    `Silent` for a child that hangs, and `Stopping`. Time in which this worker was suspended does not count as silence.
    """
    stage: StageName = "starting"
    silent, ticked = 0.0, time.monotonic()
    attempt.recorder.add(StageBegun(stage))
    while True:
        status = child.poll()
        for _ in range(child.messages.qsize()):
            stage, silent = _heard(child, kept, attempt) or stage, 0.0
        attempt.recorder.check()
        limit = attempt.settings.silence_seconds
        if status is not None and (status in {SUCCEEDED, REFUSED} or not kept.is_busy or silent > limit):
            return status, child.last_words()
        if attempt.stopping.is_set():
            raise Stopping
        if status is None and silent > limit:
            raise Silent(f"the training process said nothing for {limit:g} seconds, in the stage {stage!r}: it hangs")
        time.sleep(TICK_SECONDS)
        now = time.monotonic()
        silent, ticked = silent + min(now - ticked, 10 * TICK_SECONDS), now


def _heard(child: Child, kept: CheckpointUpload, attempt: Attempt) -> StageName | None:
    """Handle the child's next message; the stage if the message begins one, otherwise None."""
    claim = attempt.claim
    match message := child.messages.get():
        case ProgressMade():
            attempt.recorder.advance(message)
        case CheckpointLeft():
            kept.take_over()
        case Note():
            log.warning("increment %s: attempt %d: %s", claim.increment_id, claim.attempt, message.text)
        case StageBegun():
            attempt.recorder.add(message)
            return message.stage
        case EpochDone():
            attempt.recorder.add(message)
    return None


def _conclude(attempt: Attempt, status: int, last_words: str) -> None:
    claim = attempt.claim
    if status == SUCCEEDED:
        _publish(attempt)
    elif status == REFUSED:
        reason = Failure.read(attempt.folder).reason
        attempt.close(lambda connection: leases.refuse(connection, claim, reason=reason))
    else:
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        log.error("increment %s: attempt %d ended early (%s):\n%s", claim.increment_id, claim.attempt, how, last_words)
        headline = last_words.splitlines()[-1:] or ["it left no message"]
        _give_back(attempt, reason=f"the training process ended early ({how}): {headline[0]}", crashed=True)


def _publish(attempt: Attempt) -> None:
    claim, blobs, began = attempt.claim, attempt.blobs, time.monotonic()
    attempt.recorder.add(StageBegun("publishing"))
    made = Made.read(attempt.folder)
    files = _while_renewing(lambda: _store(attempt.folder / VERSION, blobs), attempt)
    outcome = Outcome(
        number=made.number,
        parent=made.parent,
        tasks=made.tasks,
        files=files,
        data_digest=made.data_digest,
        code_version=made.code_version,
        seconds={**made.seconds, "publishing": round(time.monotonic() - began, 3)},
        metrics=made.metrics,
        exemplars=made.exemplars,
    )
    published = attempt.close(lambda connection: _publish_kept(connection, claim, outcome, blobs))
    if published is None:  # either cancelled, or the claim is lost
        lease = attempt.settings.lease_seconds
        raise Cancelled if attempt.close(lambda c: leases.renew(c, claim, lease_seconds=lease)) else ClaimLost
    try:
        dispose(database=attempt.database, blobs=blobs, scratch=attempt.settings.scratch)
    except Exception:
        log.exception("what the version took the place of is not deleted yet; the sweep will try again")


def _while_renewing(call: Callable[[], Answer], attempt: Attempt) -> Answer:
    """Run a call that may take longer than a lease, on a thread of its own; its answer.

    Raises `ClaimLost`, `Cancelled`, `Silent` and `Stopping`. The thread is then left running: a wait for a store that
    hangs would prevent the shutdown.
    """
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            log.exception("increment %s: the version's files could not be stored", attempt.claim.increment_id)
            answer.set_exception(error)

    threading.Thread(target=work, name="storing", daemon=True).start()
    limit = attempt.settings.silence_seconds
    deadline, patience = time.monotonic() + limit, StopDeadline(attempt.stopping)
    while not answer.done():
        attempt.recorder.check()
        if patience.is_over:
            raise Stopping
        if time.monotonic() > deadline:
            raise Silent(f"the version's files could not be stored within {limit:g} seconds")
        time.sleep(TICK_SECONDS)
    return answer.result()


def _publish_kept(connection: Connection, claim: Claim, made: Outcome, blobs: BlobStore) -> Published | None:
    """Publish the version; raises `BlobMissing` if a file's blob was deleted meanwhile: the next attempt stores it."""
    published = publish(connection, claim, made)  # first, as it locks the model
    digests = {file.sha256 for file in made.files.values()} if published is not None else frozenset()
    if deleted := references.keep(connection, digests, exists=blobs.exists):
        raise BlobMissing(f"blob {deleted[0]} was deleted while the version was being stored", sha256=deleted[0])
    return published


def _store(folder: Path, blobs: BlobStore) -> dict[str, StoredFile]:
    """Put the files of a version into the blob store, durably; the stored files by name."""
    files = {}
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        files[path.name] = StoredFile(sha256=blobs.put_file(path), bytes=size)
    blobs.sync()
    return files


def _give_back(attempt: Attempt, *, reason: str, crashed: bool) -> None:
    claim, most = attempt.claim, attempt.settings.max_crashes
    log.warning("increment %s: attempt %d: %s", claim.increment_id, claim.attempt, reason)
    attempt.close(lambda c: leases.give_back(c, claim, reason=reason, crashed=crashed, max_crashes=most))
