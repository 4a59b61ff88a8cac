"""The supervisor of the embedded service's processes (`api.process.embedded` names them).

A process that dies is started again after a pause. SIGINT, SIGTERM and SIGHUP end all processes, the last started
first. Only at SIGTERM the API drains before it ends. A second signal ends the grace period. Signals that were ignored
when the supervisor was started stay ignored. No process stays behind, neither after a part has ended nor after the
supervisor is killed.
"""

import secrets
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from api.process.child import Child, Part, Reaper
from api.process.homelock import HomeLock
from api.process.processlog import Console, ProcessLog
from storage import inherited_signals

_LOOK_SECONDS = 0.1  # between two checks of the children
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StartFailed(Exception):
    """The service could not start; the message says why."""


class StopRequested(Exception):
    """A signal asked for the end while the service was starting."""


class Supervisor:
    """Starts parts, keeps them running, and ends them; a context manager that leaves no process behind."""

    def __init__(
        self, home: Path, *, verbose: bool = False, grace_seconds: float = 10.0, startup_seconds: float = 120.0
    ) -> None:
        """Take the home folder; raises HomeInUse when another service has it."""
        (home / "logs").mkdir(parents=True, exist_ok=True)
        self._logs, self._verbose = home / "logs", verbose
        self._grace_seconds, self._startup_seconds = grace_seconds, startup_seconds
        self._lock = HomeLock(home)
        self._mark = secrets.token_hex(8)
        self._reaper = Reaper(self._mark, inherits=[self._lock.descriptor])
        self._console = Console()
        self._children: list[Child] = []
        self._last_steps: list[Callable[[], None]] = []
        self._received: list[int] = []  # signals, as they came
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Supervisor":
        """Listen to signals from here on."""
        for number in set(_SIGNALS).difference(inherited_signals.ignored()):
            self._previous_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything, the last started first."""
        interrupted = self._received[:1] != [signal.SIGTERM]  # Ctrl-C, or the start failed: no need to drain
        for child in reversed(self._children):
            if not child.stop(
                interrupted=interrupted, grace_seconds=self._grace_seconds, hurried=lambda: len(self._received) > 1
            ):
                self._console.write(f"accrete: {child.part.name} did not stop in time and was killed")
        for step in self._last_steps:
            step()
        self._reaper.dismiss()
        self._lock.release()
        for child in self._children:
            child.log.close()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    @property
    def pids(self) -> dict[str, int | None]:
        """Process id of each part, and of the reaper."""
        return {child.part.name: child.pid for child in self._children} | {"reaper": self._reaper.pid}

    def at_end(self, step: Callable[[], None]) -> None:
        """Call ``step`` after every part has ended."""
        self._last_steps.append(step)

    def start(self, parts: Sequence[Part]) -> None:
        """Start parts side by side and return when all are ready; raises StartFailed or StopRequested."""
        started = []
        for part in parts:
            show = self._console.write if part.shows_warnings or self._verbose else None
            log = ProcessLog(part.name, self._logs, show=show, verbose=self._verbose)
            child = Child(part, mark=self._mark, reaper=self._reaper, log=log)
            self._children.append(child)
            started.append(child)
            child.start()
        deadline = time.monotonic() + self._startup_seconds
        while unready := [child for child in started if not child.part.ready()]:
            self.check_stop()
            for child in self._children:
                self._refuse_dead(child)
            if time.monotonic() > deadline:
                names = ", ".join(child.part.name for child in unready)
                raise StartFailed(f"not ready after {self._startup_seconds:.0f} s: {names}; see {self._logs}")
            time.sleep(_LOOK_SECONDS)

    def check_stop(self) -> None:
        """Raise StopRequested when a signal has come."""
        if self._received:
            raise StopRequested

    def watch(self) -> None:
        """Restart parts that die, until a signal comes."""
        while not self._received:
            self.look()
            time.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Check the reaper and every child once; restart those that have died."""
        self._reaper.ensure()
        for child in self._children:
            self._supervise(child)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)

    def _refuse_dead(self, child: Child) -> None:
        """Raise StartFailed, with its last lines, for a part that dies during the start: it would die again."""
        if (code := child.ended()) is not None:
            time.sleep(_LOOK_SECONDS)  # its last lines are still on their way through the pipe
            reason = f"{child.part.name} ended with {_describe(code)} before it was ready"
            raise StartFailed(f"{reason}; its last lines ({child.log.path}):\n{child.log.tail()}")

    def _supervise(self, child: Child) -> None:
        """Restart a child that died once its pause is over, and kill one that fails."""
        if child.restart_at is not None:
            if time.monotonic() >= child.restart_at:
                child.start()
            return
        uptime_seconds = child.uptime_seconds
        if (code := child.ended()) is not None:
            reason = f"ended with {_describe(code)}"
        elif (complaint := child.part.failing()) is not None:
            child.kill()
            reason = f"was killed: {complaint}"
        else:
            return
        pause_seconds = child.backoff.after(uptime_seconds)
        child.restart_at = time.monotonic() + pause_seconds
        self._tell(child, f"{child.part.name} {reason}; it starts again in {pause_seconds:g} s (see {child.log.path})")

    def _tell(self, child: Child, line: str) -> None:
        child.log.write(f"accrete: {line}")
        self._console.write(f"accrete: {line}")


def _describe(code: int) -> str:
    """An exit code, or the name of the signal that ended the process."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
