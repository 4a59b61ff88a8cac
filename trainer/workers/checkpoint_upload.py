"""Checkpoints on their way from an attempt's folder into the blob store, where the next attempt will look for them."""

import logging
import queue
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection

from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import StoredCheckpoint
from storage.errors import BlobMissing
from storage.maintenance.disposal import dispose
from storage.material import references
from storage.work import checkpoints
from storage.work.leases import Claim
from trainer.learning.checkpoint import read_state
from trainer.process.protocol import CHECKPOINT
from trainer.process.retries import persist
from trainer.workers.recording import DatabaseAway

TAKEN = "taken.safetensors"  # the checkpoint being uploaded, beside ``CHECKPOINT``
RETRY_SECONDS = 10.0  # after a failed upload, unless training writes the next checkpoint before
STOP_SECONDS = 5.0  # for an upload that is under way when the attempt ends

log = logging.getLogger(__name__)


class CheckpointUpload:
    """Stores an attempt's checkpoints on a thread of its own, as a large checkpoint takes longer than a lease.

    The increment's row names a checkpoint only after it is stored durably. The checkpoint before is released only when
    the row names the new one. After any error, training goes on and the older checkpoint stays.
    """

    def __init__(self, claim: Claim, folder: Path, *, database: Database, blobs: BlobStore) -> None:
        """Prepare; the thread starts when the context is entered."""
        self._claim = claim
        self._folder = folder
        self._database = database
        self._blobs = blobs
        self._ended = threading.Event()
        self._announced: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False ends the thread
        self._told, self._done = 0, 0  # announcements made and handled; one thread writes each number
        self._thread = threading.Thread(target=self._run, name="checkpoint-upload", daemon=True)

    def __enter__(self) -> "CheckpointUpload":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait ``STOP_SECONDS`` for an upload under way; a later one is released, as the claim is gone by then."""
        self._ended.set()
        self._announced.put(False)
        self._thread.join(STOP_SECONDS)

    def take_over(self) -> None:
        """Upload the checkpoint that the training process has just left in the folder; returns at once."""
        self._told += 1
        self._announced.put(True)

    @property
    def is_busy(self) -> bool:
        """Whether an upload is under way; False while a failed one waits for another try."""
        return self._done < self._told

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            try:
                goes_on = self._announced.get(timeout=RETRY_SECONDS if self._left_over() else None)
                announced = 1
            except queue.Empty:
                announced = 0
            try:
                self._keep()
            except Exception:  # no error here may end the training
                which = (self._claim.increment_id, self._claim.attempt)
                log.exception("increment %s: attempt %d: a checkpoint is not stored, the one before stays", *which)
            self._done += announced

    def _go_on_waiting(self) -> None:
        """Let `persist` wait for the database while the attempt lasts; raises `DatabaseAway` after its end."""
        if self._ended.is_set():
            raise DatabaseAway

    def _left_over(self) -> bool:
        return (self._folder / TAKEN).exists()

    def _keep(self) -> None:
        """Store and record the newest checkpoint; the training process may write another meanwhile."""
        taken = self._folder / TAKEN
        with suppress(FileNotFoundError):  # taken with the announcement before
            (self._folder / CHECKPOINT).replace(taken)
        if not taken.exists():
            return
        epoch, size = int(read_state(taken)["epoch"]), taken.stat().st_size
        made = StoredCheckpoint(sha256=self._blobs.put_file(taken), bytes=size, epoch=epoch)
        self._blobs.sync()
        persist(self._database, lambda connection: self._record(connection, made), waiting=self._go_on_waiting)
        dispose(database=self._database, blobs=self._blobs, scratch=self._folder.parent)

    def _record(self, connection: Connection, made: StoredCheckpoint) -> None:
        if references.keep(connection, {made.sha256}, exists=self._blobs.exists):
            raise BlobMissing(f"blob {made.sha256} was deleted as part of an equal one", sha256=made.sha256)
        checkpoints.record(connection, self._claim, made)


def discard_obsolete(database: Database) -> None:
    """Release the checkpoints of increments that have ended, in whatever process they ended."""
    with database.read() as connection:
        if not checkpoints.are_obsolete(connection):
            return  # without a transaction that would block other writers
    with database.write() as connection:
        checkpoints.let_go(connection)
