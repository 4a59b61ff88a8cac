"""The training process as its worker holds it: started, listened to, ended."""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.leases import Claim
from storage.settings import Settings

STOP_SECONDS = 2.0  # between asking a child to end and ending it
SPINS = "10000"  # looks of a thread of GNU OpenMP at what it waits for, some 0.1 ms
LAST_WORDS = 2_000  # characters of a crashed child's error output that are kept

log = logging.getLogger(__name__)


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
                # Threads that wait for each other look for a moment before they sleep: training is a third faster so,
                # and takes nothing from serving, to which it yields. Spinning on, two trainings on two processors
                # would take each other's time slices (docs/benchmarks.md).
                env={"GOMP_SPINCOUNT": SPINS, **os.environ},
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
            try:
                self.messages.put(json.loads(line))
            except ValueError:  # go on reading: a full pipe would stop the training
                log.exception("the training process said what is no message: %r", line[:200])

    def __enter__(self) -> "Child":
        """Use it as it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and whatever it started, if it still runs, and close its pipes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it went before it had read everything
                    pipe.close()

    def poll(self) -> int | None:
        """Exit status once it has ended and everything it said is in ``messages``."""
        status = self._process.poll()
        if status is not None:
            self._reader.join()
        return status

    def last_words(self) -> str:
        """The end of its error output."""
        return self._errors.read_text(errors="replace")[-LAST_WORDS:].strip()
