"""A process of the embedded service: how it is started, watched, restarted, and ended with all that it started."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from api.process.environment import inherited
from api.process.processlog import ProcessLog
from api.process.reaper import MARK, kill_marked, send_signal
from storage import inherited_signals


def _nothing() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the service: how to start it and how to tell that it works."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of the supervisor's own
    shows_warnings: bool = True  # on the terminal; all of its lines go to its log file anyway
    ready: Callable[[], bool]  # must be quick: called repeatedly after the start
    interruptible: bool = False  # whether SIGINT ends it sooner than SIGTERM does
    grace_seconds: float | None = None  # between SIGTERM and SIGKILL; None: the supervisor's default
    started: Callable[[], None] = _nothing  # called at every start and restart
    failing: Callable[[], str | None] = _nothing  # why a running process has to be restarted, or None


@dataclass
class Backoff:
    """Seconds to wait before the next restart: doubled after each failure up to a limit, reset after a long uptime."""

    first_seconds: float = 0.5
    longest_seconds: float = 10.0
    settled_seconds: float = 60.0  # after such an uptime, the next failure counts as the first
    _failures: int = 0

    def after(self, uptime_seconds: float) -> float:
        """The pause in seconds after a process has died that ran for ``uptime_seconds``; counts the failure."""
        if uptime_seconds >= self.settled_seconds:
            self._failures = 0
        pause = min(self.first_seconds * 2.0**self._failures, self.longest_seconds)
        self._failures = min(self._failures + 1, 30)  # bounded, so that the power does not overflow
        return pause


class Reaper:
    """The supervisor's end of `api.process.reaper`: knows every process group that must not outlive the service."""

    def __init__(self, mark: str, *, inherits: Sequence[int] = ()) -> None:
        """Start the reaper; it inherits the given descriptors (the lock of the home folder)."""
        self._mark, self._inherits = mark, tuple(inherits)
        self._groups: set[int] = set()
        self._start()

    def _start(self) -> None:
        reading, writing = os.pipe()
        self._orders = os.fdopen(writing, "w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "api.process.reaper", self._mark],
            env=inherited(),
            stdin=reading,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._inherits,
        )
        os.close(reading)
        for pid in self._groups:
            self._tell(f"+{pid}")

    def _tell(self, order: str) -> None:
        try:
            self._orders.write(order + "\n")
            self._orders.flush()
        except BrokenPipeError:  # the reaper was killed: `ensure` starts another and tells it every group
            return

    @property
    def pid(self) -> int:
        """Process id of the present reaper."""
        return self._process.pid

    def add(self, pid: int) -> None:
        """Have the reaper kill this process group if the supervisor ends."""
        self._groups.add(pid)
        self._tell(f"+{pid}")

    def forget(self, pid: int) -> None:
        """Forget a group that has ended: its id may soon belong to other processes."""
        self._groups.discard(pid)
        self._tell(f"-{pid}")

    def ensure(self) -> None:
        """Start another reaper when the last one was killed."""
        if self._process.poll() is not None:
            with suppress(BrokenPipeError):  # an order that it did not read before it was killed
                self._orders.close()
            self._start()

    def dismiss(self) -> None:
        """End the reaper, which first kills the processes that still carry the mark; returns when it has ended."""
        self.ensure()
        self._orders.close()
        self._process.wait()


class Child:
    """One part as a running process, over all its restarts."""

    def __init__(self, part: Part, *, mark: str, reaper: Reaper, log: ProcessLog) -> None:
        """Prepare the part; `start` starts its process."""
        self.part, self.log = part, log
        self.backoff = Backoff()
        self.restart_at: float | None = None  # monotonic seconds; set while it waits for its restart
        self._mark, self._reaper = f"{mark}.{part.name}.", reaper
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """Process id, None while it does not run."""
        return self._process.pid if self._process else None

    @property
    def uptime_seconds(self) -> float:
        """Seconds since the last start."""
        return time.monotonic() - self._started_at

    def start(self) -> None:
        """Start the process in a session of its own: Ctrl-C at the terminal reaches the supervisor only."""
        self._process = subprocess.Popen(
            list(self.part.command),
            env={**inherited(), "PYTHONUNBUFFERED": "1", **self.part.environment, MARK: self._mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reaper.add(self._process.pid)
        self._started_at, self.restart_at = time.monotonic(), None
        threading.Thread(target=self.log.follow, args=(self._process.stdout,), daemon=True).start()
        self.part.started()

    def ended(self) -> int | None:
        """The exit code of a process that has ended by itself, else None; kills the processes that it left running."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._clear(self._process)
        return code

    def kill(self) -> None:
        """SIGKILL the process and all it started."""
        if self._process is not None:
            send_signal(self._process.pid, signal.SIGKILL, group=True)
            self._process.wait()
            self._clear(self._process)

    def stop(self, *, interrupted: bool, grace_seconds: float, hurried: Callable[[], bool]) -> bool:
        """Send SIGTERM, and SIGKILL when the grace period is over or ``hurried`` is true; whether it ended by itself.

        ``interrupted``: an interruptible part need not drain, so it gets SIGINT instead of SIGTERM.
        """
        if self._process is None:
            return True
        is_heard = signal.SIGINT not in inherited_signals.ignored()  # a process inherits it
        soon = interrupted and self.part.interruptible and is_heard
        self._process.send_signal(signal.SIGINT if soon else signal.SIGTERM)
        deadline = time.monotonic() + (self.part.grace_seconds or grace_seconds)
        while self._process.poll() is None:
            if time.monotonic() > deadline or hurried():
                self.kill()
                return False
            time.sleep(0.02)
        self._clear(self._process)
        return True

    def _clear(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the processes that an ended process left running, in its group and in other sessions."""
        send_signal(process.pid, signal.SIGKILL, group=True)
        kill_marked(self._mark)
        self._reaper.forget(process.pid)
        self._process = None
