"""An attempt's writes to the database, on a thread of its own: a database that is away or hangs blocks nothing else."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from storage.database.engine import Database, is_unavailable
from storage.settings import Settings
from storage.work import events, leases
from storage.work.leases import Claim, ClaimLost
from trainer.process.protocol import EpochDone, ProgressMade, StageBegun
from trainer.process.retries import PAUSE_SECONDS

TICK_SECONDS = 0.1
WRITE_SECONDS = 0.25  # progress reaches the database at most this often
WATCH_SECONDS = 1.0  # a cancellation is checked for at least this often
LONGEST = 10_000  # steps that are queued while the database is away; with more, epochs are dropped

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Cancelled(Exception):
    """The cancellation of the increment was requested."""


class DatabaseAway(Exception):
    """The database did not come back in time."""


class _Last(Generic[Answer]):
    """A transaction that ends an attempt, and its answer."""

    def __init__(self, write: Callable[[Connection], Answer]) -> None:
        self.write = write
        self.answer: Future[Answer] = Future()


class AttemptRecorder:
    """Records an attempt's steps and progress, and renews its lease, however long the database was away.

    An expired lease is renewed as long as no other worker has claimed the increment. Every write names the claim, so
    a write that comes too late changes nothing.
    """

    def __init__(self, claim: Claim, *, database: Database, settings: Settings) -> None:
        """Prepare; the thread starts when the context is entered."""
        self._claim, self._database, self._settings = claim, database, settings
        self._steps: deque[StageBegun | EpochDone] = deque()
        self._progress: ProgressMade | None = None
        self._last: _Last[Any] | None = None
        self._verdict: Exception | None = None
        self._is_away = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> "AttemptRecorder":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread, without waiting for it: a statement may hang in the database."""
        self._closed.set()

    def add(self, step: StageBegun | EpochDone) -> None:
        """Queue a step, to be written after those before it; returns at once."""
        if len(self._steps) < LONGEST or not isinstance(step, EpochDone):
            self._steps.append(step)

    def advance(self, progress: ProgressMade) -> None:
        """Set the progress to be written next; it replaces progress that is not written yet."""
        self._progress = progress

    def check(self) -> None:
        """Raise `ClaimLost`, `Cancelled` or another error that ends the attempt, once it has occurred."""
        if self._verdict is not None:
            raise self._verdict

    def close(self, write: Callable[[Connection], Answer], *, may_wait: Callable[[], bool]) -> Answer:
        """Run the transaction that ends the attempt, after all added steps; its answer.

        Waits while ``may_wait`` returns True, then raises `DatabaseAway`. The transaction may be tried more than once;
        its errors are raised here.
        """
        last = _Last(write)
        self._last = last
        while not last.answer.done():
            if not may_wait():
                raise DatabaseAway
            time.sleep(TICK_SECONDS)
        return last.answer.result()

    def _run(self) -> None:
        renewed = float("-inf")
        while not self._closed.is_set():
            hurried = self._progress is not None or self._steps
            due = WRITE_SECONDS if hurried else min(WATCH_SECONDS, self._settings.heartbeat_seconds)
            last = self._last
            if self._verdict is None and (last is not None or time.monotonic() - renewed >= due):
                if not self._tried(self._note_and_renew):
                    self._closed.wait(PAUSE_SECONDS)
                    continue
                renewed = time.monotonic()
            if last is not None and self._tried(partial(self._end, last)):
                self._last = None
            self._closed.wait(TICK_SECONDS)

    def _tried(self, write: Callable[[], None]) -> bool:
        """Try to write: False if the database is away; any other error ends the attempt, as the verdict of `check`."""
        try:
            write()
        except SQLAlchemyError as error:
            if not is_unavailable(error):
                self._verdict = error
                return True
            if not self._is_away:
                which = (self._claim.increment_id, self._claim.attempt)
                log.warning("increment %s: attempt %d goes on without the database: %s", *which, error)
            self._is_away = True
            return False
        except (ClaimLost, Cancelled) as verdict:
            self._verdict = verdict
        except Exception as error:
            log.exception("increment %s: what happened cannot be written down", self._claim.increment_id)
            self._verdict = error
        if self._is_away:
            log.warning("increment %s: the database is back", self._claim.increment_id)
        self._is_away = False
        return True

    def _note_and_renew(self) -> None:
        """Write the queued steps and the newest progress, and renew the lease, in one transaction."""
        steps, progress = list(self._steps), self._progress
        with self._database.write() as connection:
            if not leases.holds(connection, self._claim):
                raise ClaimLost
            for step in steps:
                data = step.data() | {"attempt": self._claim.attempt}
                events.add(connection, self._claim.increment_id, kind=step.kind, data=data)
            cancel = leases.renew(
                connection,
                self._claim,
                lease_seconds=self._settings.lease_seconds,
                progress=progress.data() if progress is not None else None,
            )
        for _ in steps:
            self._steps.popleft()
        if self._progress is progress:
            self._progress = None
        if cancel:
            raise Cancelled

    def _end(self, last: _Last[Any]) -> None:
        try:
            with self._database.write() as connection:
                answer = last.write(connection)
        except Exception as error:
            if isinstance(error, SQLAlchemyError) and is_unavailable(error):
                raise
            last.answer.set_exception(error)
        else:
            last.answer.set_result(answer)
