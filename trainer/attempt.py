"""One attempt at an increment, seen from the worker: a child process that trains, and what is made of its end."""

import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from storage import events, leases, references
from storage.blobs import BlobStore
from storage.database import Database
from storage.disposal import dispose
from storage.domain import IncrementStatus, StoredFile
from storage.errors import BlobMissing
from storage.leases import Claim
from storage.publication import Outcome, Published, publish
from storage.settings import Settings
from trainer.childprocess import Child
from trainer.forkserver import ForkServer
from trainer.patience import persist
from trainer.safekeeping import Safekeeping

TICK_SECONDS = 0.1
WRITE_SECONDS = 0.25  # progress reaches the database at most this often
WATCH_SECONDS = 1.0  # a cancellation is looked for at least this often
REFUSED = 3  # exit status of a child that knows why it can never succeed; failure.json says it

log = logging.getLogger(__name__)


class ClaimLost(Exception):
    """Another worker holds the increment now, or it was deleted: nothing more may be written."""


class Cancelled(Exception):
    """Somebody asked for the increment to stop."""


class Stopping(Exception):
    """This worker shuts down."""


def run_attempt(
    claim: Claim,
    *,
    server: ForkServer,
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    stopping: threading.Event,
) -> None:
    """Train in a child process and publish what it made; on return the row tells how it ended.

    Ends in exactly one of: published, failed, cancelled, queued again (crash or shutdown), or – if the claim was
    lost – without a trace.
    """
    folder = scratch_folder(settings, claim)
    try:
        for left_behind in settings.scratch.glob(f"{claim.increment_id}-*"):  # by attempts that were killed
            shutil.rmtree(left_behind, ignore_errors=True)
        folder.mkdir(parents=True)
        with Safekeeping(claim, folder, database=database, blobs=blobs) as kept:
            with Child(server, claim, settings, folder) as child:
                ended = _watch(child, kept, claim, settings=settings, database=database, stopping=stopping)
            _conclude(claim, folder, ended, settings=settings, database=database, blobs=blobs)
    except ClaimLost:
        log.warning("increment %s: attempt %d lost its claim", claim.increment_id, claim.attempt)
    except Cancelled:
        persist(database, lambda connection: leases.end(connection, claim, IncrementStatus.CANCELLED))
    except Stopping:
        _give_back(claim, database, settings, reason="the worker was shut down", crashed=False)
    except Exception as error:  # a full disk, a store that is away: one crashed attempt, with its reason on record
        log.exception("increment %s: attempt %d failed in the worker", claim.increment_id, claim.attempt)
        reason = f"the worker could not go on ({type(error).__name__}: {error})"
        _give_back(claim, database, settings, reason=reason, crashed=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch_folder(settings: Settings, claim: Claim) -> Path:
    """Where an attempt keeps its unfinished work."""
    return settings.scratch / f"{claim.increment_id}-{claim.attempt}"


def _watch(
    child: Child,
    kept: Safekeeping,
    claim: Claim,
    *,
    settings: Settings,
    database: Database,
    stopping: threading.Event,
) -> tuple[int, str]:
    """Pass on what the child says and renew the lease until it ends; its exit status and last words.

    After a crash the last checkpoint arrives first: the next attempt is to go on from it.
    """
    progress: Mapping[str, Any] | None = None
    renewed = float("-inf")
    _record(database, claim, {"kind": "stage", "stage": "starting"})
    while True:
        status = child.poll()
        while not child.messages.empty():
            match message := child.messages.get():
                case {"kind": "progress"}:
                    progress = message["progress"]
                case {"kind": "checkpoint"}:
                    kept.take_over()
                case {"kind": "note"}:
                    log.warning("increment %s: attempt %d: %s", claim.increment_id, claim.attempt, message["text"])
                case _:
                    _record(database, claim, message)
        due = WRITE_SECONDS if progress is not None else min(WATCH_SECONDS, settings.heartbeat_seconds)
        if time.monotonic() - renewed >= due:
            _renew(database, claim, settings, progress)
            renewed, progress = time.monotonic(), None
        if status is not None and (status in {0, REFUSED} or not kept.is_busy):
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

    persist(database, write)


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
        persist(database, lambda connection: leases.refuse(connection, claim, reason=reason))
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
    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(_store, folder / "version", blobs)
        while not storing.done():  # large weights take longer than a lease
            _renew(database, claim, settings, None)
            wait([storing], timeout=min(WATCH_SECONDS, settings.heartbeat_seconds))
    files = storing.result()
    seconds = outcome.pop("seconds") | {"publishing": round(time.monotonic() - began, 3)}
    made = Outcome(**outcome, files=files, seconds=seconds)
    published = persist(database, lambda connection: _publish_kept(connection, claim, made, blobs))
    if published is None:
        _renew(database, claim, settings, None)  # tells a cancellation from a lost claim
        raise ClaimLost
    dispose(database=database, blobs=blobs, scratch=settings.scratch)


def _publish_kept(connection: Connection, claim: Claim, made: Outcome, blobs: BlobStore) -> Published | None:
    """Publish, unless a file of the version was deleted as part of an equal one: then the next attempt stores it."""
    digests = {file.sha256 for file in made.files.values()}
    if deleted := references.keep(connection, digests, exists=blobs.exists):
        raise BlobMissing(f"blob {deleted[0]} was deleted while the version was being stored", sha256=deleted[0])
    return publish(connection, claim, made)


def _store(folder: Path, blobs: BlobStore) -> dict[str, StoredFile]:
    """Put the files of a version where a power cut does not reach them."""
    files = {}
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        files[path.name] = StoredFile(sha256=blobs.put_file(path), bytes=size)
    blobs.sync()
    return files


def _give_back(claim: Claim, database: Database, settings: Settings, *, reason: str, crashed: bool) -> None:
    log.warning("increment %s: attempt %d: %s", claim.increment_id, claim.attempt, reason)
    persist(
        database,
        lambda connection: leases.give_back(
            connection, claim, reason=reason, crashed=crashed, max_crashes=settings.max_crashes
        ),
    )
