"""The training process on the worker's side: its start, its messages and its end."""

import logging
import queue
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from storage.settings import Settings
from storage.work.leases import Claim
from trainer.process.protocol import Message, Order, decode
from trainer.workers.forkserver import ForkServer

STOP_SECONDS = 2.0  # between SIGTERM and SIGKILL
LONGEST_LINE = 64 << 10  # bytes; most messages have a few hundred
WAITING = 256  # messages that are queued; with more of them the child has to wait
LAST_WORDS = 2_000  # characters of a crashed child's error output that are kept

log = logging.getLogger(__name__)


class Unintelligible(Exception):
    """The messages or the exit status of a training process cannot be read."""


class Child:
    """The training process: forked for one attempt, in a process group of its own.

    It reads its order from a socket, and writes its messages to the same socket, one per line. It ends when the socket
    is closed, since that means that the worker has died.
    """

    def __init__(self, server: ForkServer, claim: Claim, settings: Settings, folder: Path) -> None:
        """Start it, and send its order."""
        order = Order(
            increment=claim.increment_id,
            attempt=claim.attempt,
            folder=str(folder),
            settings=settings.model_dump(mode="json"),
            spawned_at=time.time(),
        )
        self._errors = folder / "stderr.log"
        self._channel, theirs = socket.socketpair()
        with theirs, self._errors.open("wb") as errors:
            self._forked = server.fork(theirs, errors.fileno())
        self._channel.sendall(order.encode())  # does not block: it fits into the socket's buffer
        self._status: int | None = None
        self._fault: str | None = None
        self._closed = threading.Event()
        self.messages: queue.Queue[Message] = queue.Queue(WAITING)
        self._reader = threading.Thread(target=self._read, name="child-reader", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Read messages and the exit status; an error is kept for `poll` to raise, so that nobody waits for ever."""
        try:
            self._forked.begun()
            self._listen()
        except Exception as error:
            log.exception("the training process cannot be understood")
            self._fault = f"the training process cannot be understood ({type(error).__name__}: {error})"
        self._status = self._forked.ended()

    def _listen(self) -> None:
        line = b""
        with self._channel.makefile("rb") as lines, suppress(ConnectionResetError):  # its order was not read
            while (line := lines.readline(LONGEST_LINE)).endswith(b"\n"):
                self._put(decode(line))
        if len(line) >= LONGEST_LINE:
            raise Unintelligible(f"a line of more than {LONGEST_LINE} bytes")

    def _put(self, message: Message) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self.messages.put(message, timeout=0.1)
                return

    def __enter__(self) -> "Child":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, and all that it started, if it still runs."""
        self._closed.set()
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if self._reader.is_alive():
                self._forked.send(ending)
                self._reader.join(STOP_SECONDS)
        if self._reader.is_alive():  # the kernel cannot end it, perhaps as it waits for a disk
            log.error("the training process does not end, and is left to itself")
            self._forked.abandon()
            self._reader.join(STOP_SECONDS)
        self._forked.let_go()
        self._channel.close()

    def poll(self) -> int | None:
        """Exit status once it has ended and all it sent is in ``messages``, None before; raises `Unintelligible`."""
        if self._reader.is_alive() and self._fault is None:
            return None
        if self._fault is not None or self._status is None:
            raise Unintelligible(self._fault or "nobody can tell how the training process ended")
        return self._status

    def last_words(self) -> str:
        """The end of its error output."""
        return self._errors.read_text(errors="replace")[-LAST_WORDS:].strip()
