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
SPINS = "10000"  # iterations, about 0.1 ms, that a waiting thread of GNU OpenMP spins before it sleeps


class ForkServer:
    """A process that has loaded torch, kept ready so that an attempt begins in milliseconds; one attempt at a time.

    The server ends when this process ends, for whatever reason. The training process ends with the server.
    """

    def __init__(self, niceness: int, *, loaded: bool) -> None:
        """Prepare, without starting the server; ``niceness`` is that of training processes.

        With ``loaded``, they are forked with torch in memory, so they must not use a GPU. Otherwise each is a fresh
        interpreter, which imports torch itself.
        """
        self._niceness, self.loaded = niceness, loaded
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the server, unless it runs; it loads for some seconds, and processes can be requested meanwhile."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._begin()

    def fork(self, channel: socket.socket, errors: int) -> "Forked":
        """Request a process with ``channel`` as its socket and the descriptor ``errors`` for its output.

        Both stay open in this process, too. Raises ConnectionError if the server was killed a moment ago.
        """
        self.start()
        assert self._process is not None
        assert self._control is not None
        socket.send_fds(self._control, [FORK], [channel.fileno(), errors])
        return Forked(self._process, self._control)

    def close(self) -> None:
        """End the server, and with it the process that it has forked."""
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
                # Waiting threads spin for a moment before they sleep. That makes training a third faster, and takes
                # nothing from serving, which has priority. With longer spinning, two trainings on two processors would
                # take each other's time slices (docs/benchmarks.md).
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
    """Whether training may use a GPU, with this ``ACCRETE_DEVICE``; to ask torch would already use the GPU."""
    return not device.startswith("cpu") and any(path.exists() for path in _GPUS)


class Forked:
    """A training process that was requested."""

    def __init__(self, server: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        """Return at once; `begun` waits for the process."""
        self._server, self._control = server, control
        self._pid: int | None = None

    def begun(self) -> None:
        """Wait until the process is forked, or the server has ended."""
        self._pid = self._number()

    def ended(self) -> int:
        """Wait for its exit status, negative for a signal; the server's if the server has ended and so ended it."""
        status = self._number()
        return self._server.wait() if status is None else status

    def send(self, number: signal.Signals) -> None:
        """Signal its process group; not after `let_go`. If it is not forked yet, the server is killed instead."""
        if self._pid is None:
            self._server.kill()
        else:
            with suppress(ProcessLookupError):  # the server was killed, and init has reaped the process
                os.killpg(self._pid, number)

    def abandon(self) -> None:
        """Wait no longer for its end: kill the server; the next attempt starts another one."""
        self._server.kill()

    def let_go(self) -> None:
        """Have the process reaped; its pid may be reused from now on."""
        with suppress(ConnectionError):  # the server has ended, so init reaps the process
            self._control.sendall(LET_GO)

    def _number(self) -> int | None:
        """The next number from the server, a pid or an exit status; None if the server has ended."""
        try:
            data = self._control.recv(NUMBER.size, socket.MSG_WAITALL)
        except ConnectionResetError:  # it ended before it read the request
            return None
        return NUMBER.unpack(data)[0] if len(data) == NUMBER.size else None
