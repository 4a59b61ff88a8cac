"""One worker process: one increment at a time, a sweep for increments that no message announced, and a canary."""

import atexit
import logging
import os
import re
import shutil
import threading
import time

from celery import Celery
from celery.utils.nodenames import worker_direct
from kombu.exceptions import OperationalError as BrokerUnreachable
from sqlalchemy.exc import OperationalError as DatabaseUnreachable

from storage.blobs.opening import open_blobs
from storage.broker import wake_worker
from storage.database.engine import Database
from storage.maintenance.disposal import dispose
from storage.maintenance.pruning import prune
from storage.settings import Settings
from storage.work import leases
from trainer.workers.attempt import run_attempt
from trainer.workers.checkpoint_upload import discard_obsolete
from trainer.workers.exporting import Exporting
from trainer.workers.forkserver import ForkServer, may_use_gpu
from trainer.workers.upgrading import Upgrading

ATTEMPT_FOLDER = re.compile(r"[0-9a-f]{32}-[0-9]+")
CANARY = "worker.canary"
CANARY_SECONDS = 10.0
PRUNE_SECONDS = 60.0  # from one pruning to the next, once there is nothing left to prune
SILENCE_SECONDS = 45.0  # a canary that takes longer is lost
EXIT_SILENT = 70  # EX_SOFTWARE: the supervisor starts a new worker

log = logging.getLogger(__name__)


class Worker:
    """The worker behind the Celery tasks; one per process."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        """Prepare; nothing is connected before `start`."""
        self.settings = settings
        self.app = app
        self.name = "worker"
        self.stopping = threading.Event()
        self._busy = threading.Lock()
        self._database = Database(settings.database)
        self._blobs = open_blobs(settings.blobs)
        self._server = ForkServer(settings.niceness, loaded=not may_use_gpu(settings.device))
        self._upgrading = Upgrading(self._database)
        self._exporting = Exporting(self._database)
        self._canary_sent: float | None = None  # time.monotonic() of the oldest unanswered one

    def start(self) -> None:
        """Start the sweep, the fork server and an upgrade; called when Celery is ready to take messages."""
        atexit.register(self._server.close)
        self._server.start()
        self._upgrading.start()
        threading.Thread(target=self._sweep_forever, name="sweep", daemon=True).start()

    def stop(self) -> None:
        """Let the running increment go back to the queue; called when Celery begins to shut down."""
        self.stopping.set()
        self._upgrading.close()
        self._exporting.close()

    def work(self, *, asked_for: str) -> None:
        """Work on runnable increments, one after another, until there is none; returns at once if already busy."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            while not self.stopping.is_set() and (claim := self._claim()) is not None:
                log.info("increment %s: attempt %d begins", claim.increment_id, claim.attempt)
                run_attempt(
                    claim,
                    server=self._server,
                    settings=self.settings,
                    database=self._database,
                    blobs=self._blobs,
                    stopping=self.stopping,
                )
        except Exception:
            log.exception("working on increments, woken for %s, failed; the sweep will try again", asked_for)
            raise
        finally:
            self._busy.release()

    def canary_returned(self) -> None:
        """Note that the last canary came back."""
        self._canary_sent = None

    def _claim(self) -> leases.Claim | None:
        with self._database.write() as connection:
            return leases.claim(
                connection,
                worker=self.name,
                lease_seconds=self.settings.lease_seconds,
                max_crashes=self.settings.max_crashes,
            )

    def _sweep_forever(self) -> None:
        """Wake a worker for runnable increments, clean up, and end this process if messages no longer arrive.

        Only an idle worker looks for increments: a busy one could not take one, and looks for the next by itself.
        """
        next_canary, next_pruning, scratch_is_clear = 0.0, 0.0, False
        while not self.stopping.wait(self.settings.sweep_seconds):
            try:
                if not scratch_is_clear:
                    self._clear_scratch()
                    scratch_is_clear = True
                if not self._busy.locked():
                    self._sweep()
                self._exporting.look()
                discard_obsolete(self._database)
                dispose(database=self._database, blobs=self._blobs, scratch=self.settings.scratch)
                if time.monotonic() >= next_pruning and prune(self._database, self.settings):
                    next_pruning = time.monotonic() + PRUNE_SECONDS
                if time.monotonic() >= next_canary:
                    next_canary = time.monotonic() + CANARY_SECONDS
                    self._send_canary()
            except (BrokerUnreachable, DatabaseUnreachable) as error:
                self._canary_sent = None  # no canary was lost: it could not be sent
                log.warning("sweep: %s", error)
            except Exception:  # no error may end the sweep: increments would wait for ever
                self._canary_sent = None
                log.exception("sweep failed; trying again in %g s", self.settings.sweep_seconds)
            silent = self._canary_sent is not None and time.monotonic() - self._canary_sent > SILENCE_SECONDS
            if silent and not self._busy.locked():
                log.error(
                    "no message has arrived for %.0f s though Redis takes them: ending this worker", SILENCE_SECONDS
                )
                logging.shutdown()
                os._exit(EXIT_SILENT)

    def _clear_scratch(self) -> None:
        """Remove the folders of attempts that have ended; on a shared volume other workers' attempts may run."""
        folders = list(self.settings.scratch.glob("*-*"))  # before the claims are read: a new claim may make a folder
        with self._database.read() as connection:
            running = {f"{claim.increment_id}-{claim.attempt}" for claim in leases.standing(connection)}
        for folder in folders:
            if ATTEMPT_FOLDER.fullmatch(folder.name) and folder.name not in running:
                shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        with self._database.read() as connection:
            waiting = leases.runnable(connection, limit=1)
        for increment in waiting:
            wake_worker(self.app, increment.id)

    def _send_canary(self) -> None:
        if self._canary_sent is None:
            self._canary_sent = time.monotonic()  # first, as it may be back before `send_task` returns
            queue = worker_direct(self.name)
            self.app.send_task(CANARY, queue=queue, expires=SILENCE_SECONDS)  # type: ignore[arg-type]
