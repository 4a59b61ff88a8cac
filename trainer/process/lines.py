"""What a training process tells its worker: one JSON object a line, stages, epochs, progress and checkpoints.

A worker that hears nothing for long ends it (``ACCRETE_SILENCE_SECONDS``), so what takes long says that it goes on.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

PROGRESS_SECONDS = 0.2  # between two progress lines; the worker writes them to the database about as often
ALIVE_SECONDS = 1.0  # between two signs of life
OPAQUE_SECONDS = 6 * 3600.0  # that a step may compute without anything to say; then it hangs
NOTE = 10_000  # characters of a note


class LineReport:
    """A report written to a stream, with the duration of each stage."""

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``, a line at a time."""
        self._stream = stream
        self._stage = "starting"
        self._next = self._next_sign = 0.0
        self._writing = threading.Lock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, **more: Any) -> Iterator[None]:
        """Work on one stage: announced at its beginning, with what else there is to say, timed at its end."""
        self._stage = name
        self._write({"kind": "stage", "stage": name, **more})
        self._write({"kind": "progress", "progress": {"stage": name}})
        self._next = 0.0
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 3)

    def due(self) -> bool:
        """Whether it is time for another progress line."""
        return time.monotonic() >= self._next

    def progress(self, **state: Any) -> None:
        """Write a progress line if one is due."""
        if self.due():
            self._next = time.monotonic() + PROGRESS_SECONDS
            self._write({"kind": "progress", "progress": {"stage": self._stage, **state}})

    def alive(self) -> None:
        """Write a sign of life if one is due."""
        if time.monotonic() >= self._next_sign:
            self._next_sign = time.monotonic() + ALIVE_SECONDS
            self._write({"kind": "alive"})

    @contextmanager
    def opaque(self) -> Iterator[None]:
        """Take a step that cannot say how far it is: it is alive as long as this process computes."""
        done = threading.Event()
        watching = threading.Thread(target=self._watch, args=[done], name="signs-of-life", daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()

    def _watch(self, done: threading.Event) -> None:
        began, computed = time.monotonic(), _computed()
        while not done.wait(ALIVE_SECONDS) and time.monotonic() - began < OPAQUE_SECONDS:
            if (now := _computed()) > computed + 1e-3:
                self.alive()
            computed = now

    def epoch(self, **done: Any) -> None:
        """Write an epoch line."""
        self._write({"kind": "epoch", **done})

    def checkpoint(self, *, epoch: int) -> None:
        """Say that the checkpoint of an epoch lies in the folder, for the worker to take."""
        self._write({"kind": "checkpoint", "epoch": epoch})

    def note(self, text: str) -> None:
        """Say something for the worker's log."""
        self._write({"kind": "note", "text": text[:NOTE]})

    def _write(self, message: dict[str, Any]) -> None:
        line = json.dumps(message) + "\n"
        with self._writing:
            self._stream.write(line)
            self._stream.flush()


def _computed() -> float:
    """Seconds that this process has computed, but for the thread that asks."""
    return time.process_time() - time.thread_time()
