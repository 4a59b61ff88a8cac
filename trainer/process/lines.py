"""The messages of a training process to its worker, one per line; see `trainer.process.protocol`.

The worker ends a training process that sends nothing for ``ACCRETE_SILENCE_SECONDS``, so long steps send signs of life.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from trainer.process.protocol import (
    NOTE,
    CheckpointLeft,
    EpochDone,
    Message,
    Note,
    ProgressMade,
    StageBegun,
    StageName,
    StillAlive,
)

PROGRESS_SECONDS = 0.2  # between two progress lines; the worker writes them to the database about as often
ALIVE_SECONDS = 1.0  # between two signs of life
OPAQUE_SECONDS = 6 * 3600.0  # a step without progress that computes for longer is taken to hang


class LineReport:
    """A report written to a stream, with the duration of each stage."""

    def __init__(self, stream: TextIO) -> None:
        """Write messages to ``stream``, one per line."""
        self._stream = stream
        self._stage: StageName = "starting"
        self._next = self._next_sign = 0.0
        self._writing = threading.Lock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: StageName, *, resumed_from_epoch: int | None = None) -> Iterator[None]:
        """Work on one stage: announced at its beginning, timed at its end."""
        self._stage = name
        self._write(StageBegun(name, resumed_from_epoch=resumed_from_epoch))
        self._write(ProgressMade(name))
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
            self._write(ProgressMade(self._stage, **state))

    def alive(self) -> None:
        """Write a sign of life if one is due."""
        if time.monotonic() >= self._next_sign:
            self._next_sign = time.monotonic() + ALIVE_SECONDS
            self._write(StillAlive())

    @contextmanager
    def opaque(self) -> Iterator[None]:
        """A context for a step that cannot report its progress: signs of life are sent while this process computes."""
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
        self._write(EpochDone(**done))

    def checkpoint(self, *, epoch: int) -> None:
        """Report that the checkpoint of an epoch is in the folder, for the worker to take."""
        self._write(CheckpointLeft(epoch))

    def note(self, text: str) -> None:
        """Write a text to the worker's log, cut to ``NOTE`` characters."""
        self._write(Note(text[:NOTE]))

    def _write(self, message: Message) -> None:
        line = message.encode()
        with self._writing:
            self._stream.write(line)
            self._stream.flush()


def _computed() -> float:
    """Processor seconds that this process has used, without those of the calling thread."""
    return time.process_time() - time.thread_time()
