"""Inside the fork server: one process that has loaded torch once, and forks a training process for each attempt.

Where there may be a GPU it has loaded nothing, and what it forks goes on as a fresh interpreter: CUDA must not be used
in a fork of a process that has used it, and what libraries do when they are loaded is not ours to say.

Between the two ends of the control socket: a byte `FORK` with the attempt's two descriptors asks for a process; its
pid comes back at once, and its exit status when it has ended; a byte `LET_GO` says that nobody sends it signals any
more, so that its pid may go to another. The end of the socket is the end of the worker, and of this process.
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

Train = Callable[[socket.socket], int]  # an attempt, ordered through a socket; its exit status

log = logging.getLogger(__name__)


def main(arguments: list[str], train: Train) -> int:
    """What `trainer.process` was asked for; its exit status."""
    match arguments:
        case [protocol.SERVE, control, niceness, loaded]:
            return serve(control=int(control), niceness=int(niceness), loaded=loaded == protocol.LOADED, train=train)
        case [protocol.TRAIN, channel]:
            return _trained(int(channel), train)
    raise ValueError(f"nothing that the worker asks for: {arguments}")


def serve(*, control: int, niceness: int, loaded: bool, train: Train) -> int:
    """Fork training processes until the worker at the other end of a socket is gone; its exit status.

    ``loaded``: they have torch from the beginning; else each is a fresh interpreter.
    """
    yield_processor(niceness)  # which the processes to come inherit
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
            with suppress(PermissionError):  # it is another program by now, and has done so before
                os.setpgid(pid, pid)  # as it does itself; whoever is first
            worker.sendall(NUMBER.pack(pid))
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None  # without WNOHANG there is an answer
            worker.sendall(NUMBER.pack(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status))
            worker.recv(1)
            os.waitpid(pid, 0)
    return 0


def _load() -> None:
    """Import what every training process needs: three quarters of the time that a small increment would take.

    Nothing may be computed here: the threads that torch computes with, and a GPU's state, do not survive a fork.
    """
    for module in ("trainer.process.run", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite"):
        import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page that holds an object


def _become_training(channel: int, errors: int, server: int, *, loaded: bool, train: Train) -> None:
    """What the new process does instead of going on as this one; never returns."""
    status = 1
    try:
        _end_with(server)
        os.setpgid(0, 0)  # a group to signal, of it and whatever it will start
        for stream in (sys.stdout, sys.stderr):
            os.dup2(errors, stream.fileno())
        if not loaded:
            os.set_inheritable(channel, True)
            os.execv(sys.executable, [sys.executable, "-m", "trainer.process", protocol.TRAIN, str(channel)])
        status = _trained(channel, train)
    except Exception:
        log.exception("the training process cannot go on")  # on its error output, for the worker to read
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _trained(channel: int, train: Train) -> int:
    os.set_inheritable(channel, False)
    return train(socket.socket(fileno=channel))


def _end_with(server: int) -> None:
    """Have the kernel end this process with the fork server: without it nobody would learn how it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
