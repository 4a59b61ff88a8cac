"""The worker's end of its fork server (`trainer.process.forks`)."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from trainer.process.protocol import FORK, FRESH, LET_GO, LOADED, NUMBER, SERVE

_GPUS = tuple(map(Path, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))  # CUDA, ROCm, either under WSL
SPINS = "10000"  # looks of a thread of GNU OpenMP at what it waits for, some 0.1 ms


class ForkServer:
    """A process that has loaded torch, kept ready so that an attempt begins in milliseconds; one attempt at a time.

    It ends with this process, however that ends, and the process of an attempt ends with it.
    """

    def __init__(self, niceness: int, *, loaded: bool) -> None:
        """Start nothing yet; training processes will have this niceness.

        ``loaded``: they are forked with torch in memory, so they may not use a GPU; else each begins as a fresh
        interpreter and loads it for itself.
        """
        self._niceness, self.loaded = niceness, loaded
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start it, or another one if it has ended; it needs some seconds to load, and can be asked meanwhile."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._begin()

    def fork(self, channel: socket.socket, errors: int) -> "Forked":
        """Ask for a process that holds a socket and writes its output to a descriptor; both stay open here, too.

        Raises ConnectionError when the server was killed a moment ago.
        """
        self.start()
        assert self._process is not None
        assert self._control is not None
        socket.send_fds(self._control, [FORK], [channel.fileno(), errors])
        return Forked(self._process, self._control)

    def close(self) -> None:
        """End it, and with it what it has forked."""
        with self._lock:
            self._end()

    def _begin(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "trainer.process", SERVE, str(theirs.fileno()), str(self._niceness)),
                    LOADED if self.loaded else FRESH,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                # Threads that wait for each other look for a moment before they sleep: training is a third faster so,
                # and takes nothing from serving, to which it yields. Spinning on, two trainings on two processors
                # would take each other's time slices (docs/benchmarks.md).
                env={"GOMP_SPINCOUNT": SPINS, **os.environ},
            )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()  # it has nothing to lose
            self._process.wait()
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None


def may_use_gpu(device: str) -> bool:
    """Whether training on what ``ACCRETE_DEVICE`` says may use a GPU; asking torch would already begin to."""
    return not device.startswith("cpu") and any(path.exists() for path in _GPUS)


class Forked:
    """A training process that was asked for."""

    def __init__(self, server: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        """Wait for nothing yet."""
        self._server, self._control = server, control
        self._pid: int | None = None

    def begun(self) -> None:
        """Wait until it is there, or will never be."""
        self._pid = self._number()

    def ended(self) -> int:
        """Wait for its exit status, negative for a signal; that of the server if this has ended, and so ended it."""
        status = self._number()
        return self._server.wait() if status is None else status

    def send(self, number: signal.Signals) -> None:
        """Signal it and what it has started; not once it was let go. What is not there yet ends with the server."""
        if self._pid is None:
            self._server.kill()
        else:
            with suppress(ProcessLookupError):  # its server was killed, and init has reaped it
                os.killpg(self._pid, number)

    def abandon(self) -> None:
        """Wait no longer for its end: the server ends, which the next attempt replaces."""
        self._server.kill()

    def let_go(self) -> None:
        """Have it reaped: its pid may be another's from now on."""
        with suppress(ConnectionError):  # of a server that has ended, init has it
            self._control.sendall(LET_GO)

    def _number(self) -> int | None:
        """What the server says next; None when it has ended."""
        try:
            data = self._control.recv(NUMBER.size, socket.MSG_WAITALL)
        except ConnectionResetError:  # it ended before it had read what we asked
            return None
        return NUMBER.unpack(data)[0] if len(data) == NUMBER.size else None
