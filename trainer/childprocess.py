"""The training process as its worker holds it: started, listened to, ended."""

import json
import logging
import queue
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.leases import Claim
from storage.settings import Settings
from trainer.forkserver import ForkServer

STOP_SECONDS = 2.0  # between asking a child to end and ending it
LAST_WORDS = 2_000  # characters of a crashed child's error output that are kept

log = logging.getLogger(__name__)


class Child:
    """The training process: forked for one attempt, in a process group of its own, talking to us line by line.

    It reads its order from the socket that it answers on, and takes the end of that for our death.
    """

    def __init__(self, server: ForkServer, claim: Claim, settings: Settings, folder: Path) -> None:
        """Start it."""
        order = {
            "increment": claim.increment_id,
            "attempt": claim.attempt,
            "folder": str(folder),
            "settings": settings.model_dump(mode="json"),
            "spawned_at": time.time(),
        }
        self._errors = folder / "stderr.log"
        self._channel, theirs = socket.socketpair()
        with theirs, self._errors.open("wb") as errors:
            self._forked = server.fork(theirs, errors.fileno())
        self._channel.sendall(json.dumps(order).encode() + b"\n")  # less than a socket holds, read or not
        self._status: int | None = None
        self.messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="child-reader", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self._forked.begun()
        with self._channel.makefile("r", encoding="utf-8") as lines, suppress(ConnectionResetError):  # order not read
            for line in lines:
                try:
                    self.messages.put(json.loads(line))
                except ValueError:  # go on reading: a full pipe would stop the training
                    log.exception("the training process said what is no message: %r", line[:200])
        self._status = self._forked.ended()

    def __enter__(self) -> "Child":
        """Use it as it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and whatever it started, if it still runs."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if self._reader.is_alive():
                self._forked.send(ending)
                self._reader.join(STOP_SECONDS)
        self._reader.join()
        self._forked.let_go()
        self._channel.close()

    def poll(self) -> int | None:
        """Exit status once it has ended and everything it said is in ``messages``."""
        return None if self._reader.is_alive() else self._status

    def last_words(self) -> str:
        """The end of its error output."""
        return self._errors.read_text(errors="replace")[-LAST_WORDS:].strip()
