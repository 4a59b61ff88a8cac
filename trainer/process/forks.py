"""Inside the fork server: one process that loads torch once, and forks a training process for each attempt.

Where training may use a GPU, the fork server does not load torch, and every fork executes a fresh interpreter: CUDA
must not be used in a fork of a process that has used CUDA, and a library may use it as soon as it is imported.

Protocol of the control socket: the worker sends the byte `FORK` with two descriptors of the attempt. The fork server
answers with the pid at once, and with the exit status when the process has ended. The worker then sends the byte
`LET_GO`: it sends no more signals, so the process is reaped and its pid may be reused. When the worker ends, the socket
closes, and the fork server ends too.
"""

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from trainer.process import protocol
from trainer.process.protocol import NUMBER
from trainer.process.resources import yield_processor

_PR_SET_PDEATHSIG = 1  # prctl(2)

Train = Callable[[socket.socket], int]  # runs the attempt ordered through a socket; returns the exit status

log = logging.getLogger(__name__)


def main(arguments: list[str], train: Train) -> int:
    """Serve or train as the arguments say, and return the exit status; raises ValueError for other arguments."""
    match arguments:
        case [protocol.SERVE, control, niceness, loaded]:
            return serve(control=int(control), niceness=int(niceness), loaded=loaded == protocol.LOADED, train=train)
        case [protocol.TRAIN, channel]:
            return _trained(int(channel), train)
    raise ValueError(f"nothing that the worker asks for: {arguments}")


def serve(*, control: int, niceness: int, loaded: bool, train: Train) -> int:
    """Fork training processes until the worker at the other end of the control socket is gone; the exit status.

    With ``loaded``, torch is imported before the first fork; otherwise each process is a fresh interpreter.
    """
    yield_processor(niceness)  # the forked processes inherit it
    if loaded:
        _load()
    server = os.getpid()
    with socket.socket(fileno=control) as worker, suppress(ConnectionError):
        while True:
            data, descriptors, _, _ = socket.recv_fds(worker, 1, 2)
            if not data:
                break
            channel, errors = descriptors
            pid = os.fork()
            if pid == 0:
                worker.close()
                _become_training(channel, errors, server, loaded=loaded, train=train)
            os.close(channel)
            os.close(errors)
            with suppress(PermissionError):  # the child has executed its program, and set its group before
                os.setpgid(pid, pid)  # the child does the same: no matter which is first
            worker.sendall(NUMBER.pack(pid))
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None  # without WNOHANG there is an answer
            worker.sendall(NUMBER.pack(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status))
            worker.recv(1)
            os.waitpid(pid, 0)
    return 0


def _load() -> None:
    """Import the modules of a training process; that would take three quarters of the time of a small increment.

    Nothing may be computed here: torch's threads and the state of a GPU do not survive a fork.
    """
    for module in ("trainer.process.run", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite"):
        import_module(module)
    gc.collect()
    gc.freeze()  # a garbage collection in a child would write to every page with an object, and so copy it


def _become_training(channel: int, errors: int, server: int, *, loaded: bool, train: Train) -> None:
    """Turn the forked process into a training process; never returns."""
    status = 1
    try:
        _end_with(server)
        os.setpgid(0, 0)  # a process group, to signal it with all processes it starts
        for stream in (sys.stdout, sys.stderr):
            os.dup2(errors, stream.fileno())
        if not loaded:
            os.set_inheritable(channel, True)
            os.execv(sys.executable, [sys.executable, "-m", "trainer.process", protocol.TRAIN, str(channel)])
        status = _trained(channel, train)
    except Exception:
        log.exception("the training process cannot go on")  # on standard error, which the worker reads
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _trained(channel: int, train: Train) -> int:
    os.set_inheritable(channel, False)
    return train(socket.socket(fileno=channel))


def _end_with(server: int) -> None:
    """Have the kernel kill this process when the fork server ends: only the fork server can read its exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
