"""What a training process tells its worker: one JSON object a line, stages, epochs, progress and checkpoints."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

PROGRESS_SECONDS = 0.2  # between two progress lines; the worker writes them to the database about as often


class Report(Protocol):
    """Where the stages of an increment tell how far they are."""

    def progress(self, **state: Any) -> None:
        """Say where things stand now; most calls are passed over, see `due`."""

    def due(self) -> bool:
        """Whether a call of `progress` would be passed on, for callers to whom finding out the state has a price."""

    def epoch(self, **done: Any) -> None:
        """Say that an epoch is complete."""


class LineReport:
    """A report written to a stream, with the duration of each stage."""

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``, a line at a time."""
        self._stream = stream
        self._stage = "starting"
        self._next = 0.0
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

    def epoch(self, **done: Any) -> None:
        """Write an epoch line."""
        self._write({"kind": "epoch", **done})

    def checkpoint(self, *, epoch: int) -> None:
        """Say that the checkpoint of an epoch lies in the folder, for the worker to take."""
        self._write({"kind": "checkpoint", "epoch": epoch})

    def note(self, text: str) -> None:
        """Say something for the worker's log."""
        self._write({"kind": "note", "text": text})

    def _write(self, message: dict[str, Any]) -> None:
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()


class SilentReport:
    """A report nobody reads, for increments trained in process."""

    def progress(self, **state: Any) -> None:
        """Say nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def epoch(self, **done: Any) -> None:
        """Say nothing."""
