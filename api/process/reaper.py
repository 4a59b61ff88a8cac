"""The reaper: a small process that outlives a killed supervisor just long enough to end everything it started.

A supervisor that is killed by SIGKILL cannot stop its children: Redis, the API and a training run would go on for ever.
So each service has a reaper. It holds the reading end of a pipe, and only the supervisor holds the other end. When the
supervisor ends, for whatever reason, the pipe is closed, and the reaper kills the processes that are still alive. This
works without per-thread kernel flags (`PR_SET_PDEATHSIG` follows the thread that forked, not the process) and reaches
grandchildren in sessions of their own. The reaper also holds the lock of the home folder, so that no second service
starts while processes of the first are alive.

Protocol on standard input, one line each: ``+PID`` – a process group to kill at the end; ``-PID`` – it has ended.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

MARK = "ACCRETE_SERVICE"  # environment variable all processes of one service inherit: "<service>.<process>."
_CLEARING_SECONDS = 5.0  # how long the reaper looks for processes that it has killed but that have not ended yet


def marked_processes(mark: str) -> list[int]:
    """Ids of this user's processes whose environment carries a mark that begins with ``mark``; [] without /proc.

    Also finds grandchildren whose parents have ended, and processes in sessions of their own.
    """
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if any(variable.startswith(wanted) for variable in environment.split(b"\0")):
            found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def send_signal(pid: int, number: signal.Signals, *, group: bool = False) -> None:
    """Signal a process or its group; one that has ended is fine (macOS answers EPERM for a group of zombies)."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def kill_marked(mark: str, *, seconds: float = _CLEARING_SECONDS) -> int:
    """SIGKILL all processes with the mark until none is left or the time is up; returns how many were found first."""
    deadline = time.monotonic() + seconds
    remaining = marked_processes(mark)
    count = len(remaining)
    while remaining and time.monotonic() < deadline:
        for pid in remaining:
            send_signal(pid, signal.SIGKILL)
        time.sleep(0.02)
        remaining = marked_processes(mark)
    return count


def keep(mark: str, orders: TextIO) -> None:
    """Follow the orders until the supervisor has ended, then kill the remaining processes of its service."""
    groups: set[int] = set()
    for order in orders:
        pid = int(order[1:])
        if order[0] == "+":
            groups.add(pid)
        else:
            groups.discard(pid)
    for pid in groups:
        send_signal(pid, signal.SIGKILL, group=True)
    kill_marked(mark)


def main() -> None:
    """Run as ``python -m api.process.reaper MARK``; only the end of the pipe ends it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep(sys.argv[1], sys.stdin)


if __name__ == "__main__":
    main()
