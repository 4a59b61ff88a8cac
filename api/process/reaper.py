"""The reaper: a small process that outlives a killed supervisor just long enough to end everything it started.

A supervisor that is killed -9 cannot stop its children, and Redis, the API and a training run would go on for ever. So
each service has a reaper. It holds the reading end of a pipe whose other end only the supervisor has: when the
supervisor ends, for whatever reason, the pipe does too, and the reaper kills what is left. This works without
per-thread kernel flags (`PR_SET_PDEATHSIG` follows the thread that forked, not the process) and reaches grandchildren
in sessions of their own. The reaper also holds the lock of the home folder, so that nobody starts a second service
beside the remains of the first.

Protocol on standard input, one line each: ``+PID`` – a process group to kill at the end; ``-PID`` – it has ended.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

MARK = "ACCRETE_SERVICE"  # environment variable all processes of one service inherit: "<service>.<process>."
_CLEARING_SECONDS = 5.0  # how long the reaper goes on looking for what its kills have not ended yet


def marked_processes(mark: str) -> list[int]:
    """Process ids whose environment carries a mark that begins so; [] where there is no /proc.

    Finds grandchildren whose parents have gone, and those in sessions of their own. Reads what belongs to this user.
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
    """SIGKILL whatever carries the mark until nothing does or the time is up; how many were found at first."""
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
    """Follow the orders until the supervisor is gone, then kill what is left of its service."""
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
