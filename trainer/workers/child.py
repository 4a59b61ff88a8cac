"""The training process as its worker holds it: started, listened to, ended."""

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

STOP_SECONDS = 2.0  # between asking a child to end and ending it
LONGEST_LINE = 64 << 10  # bytes; ours have some hundred
WAITING = 256  # messages that nobody has taken yet; beyond it the child has to wait
LAST_WORDS = 2_000  # characters of a crashed child's error output that are kept

log = logging.getLogger(__name__)


class Unintelligible(Exception):
    """What a training process says cannot be read, or no longer."""


class Child:
    """The training process: forked for one attempt, in a process group of its own, talking to us line by line.

    It reads its order from the socket that it answers on, and takes the end of that for our death.
    """

    def __init__(self, server: ForkServer, claim: Claim, settings: Settings, folder: Path) -> None:
        """Start it."""
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
        self._channel.sendall(order.encode())  # less than a socket holds, read or not
        self._status: int | None = None
        self._fault: str | None = None
        self._closed = threading.Event()
        self.messages: queue.Queue[Message] = queue.Queue(WAITING)
        self._reader = threading.Thread(target=self._read, name="child-reader", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Whatever keeps this from going on is the fault that `poll` tells, so that nobody waits for more."""
        try:
            self._forked.begun()
            self._listen()
        except Exception as error:
            log.exception("the training process cannot be understood")
            self._fault = f"the training process cannot be understood ({type(error).__name__}: {error})"
        self._status = self._forked.ended()

    def _listen(self) -> None:
        line = b""
        with self._channel.makefile("rb") as lines, suppress(ConnectionResetError):  # order not read
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
        """Use it as it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and whatever it started, if it still runs."""
        self._closed.set()
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if self._reader.is_alive():
                self._forked.send(ending)
                self._reader.join(STOP_SECONDS)
        if self._reader.is_alive():  # the kernel does not let go of it: a disk that is away, perhaps
            log.error("the training process does not end, and is left to itself")
            self._forked.abandon()
            self._reader.join(STOP_SECONDS)
        self._forked.let_go()
        self._channel.close()

    def poll(self) -> int | None:
        """Exit status once it has ended and everything it said is in ``messages``; raises `Unintelligible`."""
        if self._reader.is_alive() and self._fault is None:
            return None
        if self._fault is not None or self._status is None:
            raise Unintelligible(self._fault or "nobody can tell how the training process ended")
        return self._status

    def last_words(self) -> str:
        """The end of its error output."""
        return self._errors.read_text(errors="replace")[-LAST_WORDS:].strip()
