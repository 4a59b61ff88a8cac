"""One attempt at an increment, seen from the worker: a child process that trains, and what is made of its end."""

import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from storage import events, images, leases
from storage.blobs import BlobStore
from storage.database import Database
from storage.domain import IncrementStatus, StoredFile
from storage.leases import Claim
from storage.publication import Outcome, publish
from storage.settings import Settings

TICK_SECONDS = 0.1
WRITE_SECONDS = 0.25  # progress reaches the database at most this often
WATCH_SECONDS = 1.0  # a cancellation is looked for at least this often
STOP_SECONDS = 2.0  # between asking a child to end and ending it
DATABASE_PATIENCE_SECONDS = 60.0
REFUSED = 3  # exit status of a child that knows why it can never succeed; failure.json says it
LAST_WORDS = 2_000  # characters of a crashed child's error output that are kept

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class ClaimLost(Exception):
    """Another worker holds the increment now, or it was deleted: nothing more may be written."""


class Cancelled(Exception):
    """Somebody asked for the increment to stop."""


class Stopping(Exception):
    """This worker shuts down."""


def run_attempt(
    claim: Claim, *, settings: Settings, database: Database, blobs: BlobStore, stopping: threading.Event
) -> None:
    """Train in a child process and publish what it made; on return the row tells how it ended.

    Ends in exactly one of: published, failed, cancelled, queued again (crash or shutdown), or – if the claim was
    lost – without a trace.
    """
    folder = scratch_folder(settings, claim)
    for left_behind in settings.scratch.glob(f"{claim.increment_id}-*"):  # by attempts that were killed
        shutil.rmtree(left_behind, ignore_errors=True)
    folder.mkdir(parents=True)
    child = Child(claim, settings, folder)
    try:
        status = _watch(child, claim, settings=settings, database=database, stopping=stopping)
        _conclude(claim, folder, status, settings=settings, database=database, blobs=blobs)
    except ClaimLost:
        log.warning("increment %s: attempt %d lost its claim", claim.increment_id, claim.attempt)
    except Cancelled:
        child.kill()
        _persist(database, lambda connection: leases.end(connection, claim, IncrementStatus.CANCELLED))
    except Stopping:
        child.kill()
        _give_back(claim, database, settings, reason="the worker was shut down", crashed=False)
    finally:
        child.kill()
        shutil.rmtree(folder, ignore_errors=True)


def scratch_folder(settings: Settings, claim: Claim) -> Path:
    """Where an attempt keeps its unfinished work."""
    return settings.scratch / f"{claim.increment_id}-{claim.attempt}"


class Child:
    """The training process: a fresh interpreter in a session of its own, talking to us line by line.

    It reads its settings from standard input and takes the end of that stream as our death.
    """

    def __init__(self, claim: Claim, settings: Settings, folder: Path) -> None:
        """Start it."""
        self._errors = folder / "stderr.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.child", claim.increment_id, str(claim.attempt), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                text=True,
                # Threads that wait for each other must sleep: spinning, two trainings on two processors, or training
                # and serving, take each other's time slices and run many times slower (docs/benchmarks.md).
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"settings": settings.model_dump(mode="json"), "spawned_at": time.time()}))
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="child-reader", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.messages.put(json.loads(line))

    def poll(self) -> int | None:
        """Exit status once it has ended and everything it said is in ``messages``."""
        status = self._process.poll()
        if status is not None:
            self._reader.join()
        return status

    def last_words(self) -> str:
        """The end of its error output."""
        return self._errors.read_text(errors="replace")[-LAST_WORDS:].strip()

    def kill(self) -> None:
        """End it and whatever it started, if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


def _watch(
    child: Child, claim: Claim, *, settings: Settings, database: Database, stopping: threading.Event
) -> tuple[int, str]:
    """Pass on what the child says and renew the lease until it ends; its exit status and last words."""
    progress: Mapping[str, Any] | None = None
    renewed = float("-inf")
    _record(database, claim, {"kind": "stage", "stage": "starting"})
    while True:
        status = child.poll()
        while not child.messages.empty():
            message = child.messages.get()
            if message["kind"] == "progress":
                progress = message["progress"]
            else:
                _record(database, claim, message)
        due = WRITE_SECONDS if progress is not None else min(WATCH_SECONDS, settings.heartbeat_seconds)
        if time.monotonic() - renewed >= due:
            _renew(database, claim, settings, progress)
            renewed, progress = time.monotonic(), None
        if status is not None:
            return status, child.last_words()
        if stopping.is_set():
            raise Stopping
        time.sleep(TICK_SECONDS)


def _record(database: Database, claim: Claim, message: Mapping[str, Any]) -> None:
    def write(connection: Any) -> None:
        if not leases.holds(connection, claim):
            raise ClaimLost
        data = {key: value for key, value in message.items() if key != "kind"}
        events.add(connection, claim.increment_id, kind=message["kind"], data=data | {"attempt": claim.attempt})

    _persist(database, write)


def _renew(database: Database, claim: Claim, settings: Settings, progress: Mapping[str, Any] | None) -> None:
    """Renew the lease; a database that is away for a while is no reason to stop training, a lost claim is."""
    try:
        with database.write() as connection:
            cancel = leases.renew(connection, claim, lease_seconds=settings.lease_seconds, progress=progress)
    except OperationalError as error:
        log.warning("increment %s: the lease could not be renewed: %s", claim.increment_id, error)
        return
    if cancel is None:
        raise ClaimLost
    if cancel:
        raise Cancelled


def _conclude(
    claim: Claim,
    folder: Path,
    ended: tuple[int, str],
    *,
    settings: Settings,
    database: Database,
    blobs: BlobStore,
) -> None:
    status, last_words = ended
    if status == 0:
        _publish(claim, folder, settings=settings, database=database, blobs=blobs)
    elif status == REFUSED:
        reason = json.loads((folder / "failure.json").read_text())["reason"]
        _persist(database, lambda connection: leases.end(connection, claim, IncrementStatus.FAILED, reason=reason))
    else:
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        log.error("increment %s: attempt %d ended early (%s):\n%s", claim.increment_id, claim.attempt, how, last_words)
        headline = last_words.splitlines()[-1:] or ["it left no message"]
        reason = f"the training process ended early ({how}): {headline[0]}"
        _give_back(claim, database, settings, reason=reason, crashed=True)


def _publish(claim: Claim, folder: Path, *, settings: Settings, database: Database, blobs: BlobStore) -> None:
    began = time.monotonic()
    _record(database, claim, {"kind": "stage", "stage": "publishing"})
    outcome = json.loads((folder / "outcome.json").read_text())
    files = {}
    for path in sorted((folder / "version").iterdir()):
        size = path.stat().st_size
        _renew(database, claim, settings, None)
        files[path.name] = StoredFile(sha256=blobs.put_file(path), bytes=size)
    blobs.sync()
    seconds = outcome.pop("seconds") | {"publishing": round(time.monotonic() - began, 3)}
    made = Outcome(**outcome, files=files, seconds=seconds)
    published = _persist(database, lambda connection: publish(connection, claim, made))
    if published is None:
        _renew(database, claim, settings, None)  # tells a cancellation from a lost claim
        raise ClaimLost
    with database.read() as connection:
        unneeded = images.unreferenced(connection, published.forgotten)
    for digest in unneeded:
        blobs.delete(digest)


def _give_back(claim: Claim, database: Database, settings: Settings, *, reason: str, crashed: bool) -> None:
    log.warning("increment %s: attempt %d: %s", claim.increment_id, claim.attempt, reason)
    _persist(
        database,
        lambda connection: leases.give_back(
            connection, claim, reason=reason, crashed=crashed, max_crashes=settings.max_crashes
        ),
    )


def _persist(database: Database, write: Callable[[Any], Answer]) -> Answer:
    """Run a transaction, again and again while the database cannot be reached, for a minute."""
    deadline = time.monotonic() + DATABASE_PATIENCE_SECONDS
    while True:
        try:
            with database.write() as connection:
                return write(connection)
        except OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the database cannot be reached, trying again: %s", error)
            time.sleep(1)
