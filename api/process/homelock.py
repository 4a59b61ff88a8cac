"""A lock that allows one service per home folder; it ends with the processes that hold it, however they end."""

import fcntl
import os
import time
from pathlib import Path

from api.pids import is_alive

_CLEARING_SECONDS = 6.0  # a little longer than the reaper of a killed service takes at most


class HomeInUse(Exception):
    """Another service runs on this home folder."""

    def __init__(self, home: Path, pid: int | None) -> None:
        """Name the folder and, where it is known, the process."""
        holder = f"process {pid}" if pid is not None else "another process"
        way_out = "stop that service first, or choose another folder with --home or ACCRETE_HOME"
        super().__init__(f"{home} is in use by {holder}: {way_out}")
        self.pid = pid


class HomeLock:
    """An exclusive flock on ``home/accrete.lock``, which holds the pid of the supervisor.

    The reaper inherits the descriptor, so the folder is free only when no process of the service is left.
    """

    def __init__(self, home: Path) -> None:
        """Take the lock; raises HomeInUse. Waits for the reaper to end the remaining processes of a killed service."""
        path = home / "accrete.lock"
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + _CLEARING_SECONDS
        while not self._try():
            pid = _recorded_pid(path)
            if (pid is not None and is_alive(pid)) or time.monotonic() > deadline:
                os.close(self.descriptor)
                raise HomeInUse(home, pid)
            time.sleep(0.05)
        os.truncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock; the file stays, empty."""
        os.truncate(self.descriptor, 0)
        os.close(self.descriptor)


def _recorded_pid(path: Path) -> int | None:
    """The pid in the lock file; None while the holder has not written it yet."""
    text = path.read_text().strip()
    return int(text) if text.isdigit() else None
