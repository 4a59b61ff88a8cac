"""Several processes of the API on one port: their parent opens the socket, starts them, and restarts those that die.

Each process holds the reading end of a pipe, and only the parent holds the other end. When the parent ends, for
whatever reason, the pipe is closed, and the processes end by themselves. Otherwise they would go on listening, and
nothing would ever end them.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from api.measures import SHARED_FOLDER, shared_folder
from api.process.child import Backoff
from api.process.sockets import listening
from storage import inherited_signals
from storage.settings import Settings

POLL_SECONDS = 0.1
BACKLOG = 2048  # connections that wait to be accepted, as many as uvicorn lets wait

log = logging.getLogger(__name__)


@dataclass
class _Place:
    """One of the processes, over all its restarts."""

    process: subprocess.Popen[bytes]
    started_at: float
    backoff: Backoff = field(default_factory=Backoff)
    restart_at: float | None = None


class Workers:
    """The parent of the API's processes; it answers no request itself."""

    def __init__(self, settings: Settings) -> None:
        """Open the socket; `run` starts the processes."""
        self._count = settings.api_workers
        self._listener = listening(settings.host, settings.port, backlog=BACKLOG)
        self._lifeline, self._held = os.pipe()  # neither is inherited unless it is passed
        self._shared = tempfile.mkdtemp(prefix="accrete-api-")
        self._asked: list[int] = []  # the signals received, in their order

    def run(self) -> int:
        """Keep the processes running until SIGTERM or SIGINT, and pass it on; returns 0 if all ended well."""
        for number in {signal.SIGTERM, signal.SIGINT}.difference(inherited_signals.ignored()):
            signal.signal(number, self._end)
        places = [_Place(self._start(index), time.monotonic()) for index in range(self._count)]
        try:
            while not self._asked:
                for index, place in enumerate(places):
                    self._restart_if_ended(index, place)
                time.sleep(POLL_SECONDS)
            self._listener.close()  # those of the processes stay open until they have drained
            self._await_end([place.process for place in places])
            codes = [place.process.wait() for place in places if place.restart_at is None]
            return max((abs(code) for code in codes if -code not in self._asked), default=0)  # still starting
        finally:
            shutil.rmtree(self._shared, ignore_errors=True)

    def _await_end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Pass every signal on, the second and later ones too, until all have ended."""
        told = 0
        while running := [process for process in processes if process.poll() is None]:
            for number in self._asked[told:]:
                told += 1
                for process in running:
                    process.send_signal(number)
            time.sleep(POLL_SECONDS)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._asked.append(number)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        descriptor, lifeline = self._listener.fileno(), self._lifeline
        ours = ["--worker", str(index), "--descriptor", str(descriptor), "--lifeline", str(lifeline)]
        return subprocess.Popen(
            [sys.executable, "-m", "api", *ours],
            env={**os.environ, SHARED_FOLDER: self._shared},
            pass_fds=(descriptor, lifeline),
        )

    def _restart_if_ended(self, index: int, place: _Place) -> None:
        """Restart a process that has ended, after a pause that grows if it ends soon after each start."""
        now = time.monotonic()
        if place.restart_at is None:
            if (code := place.process.poll()) is None:
                return
            mark_process_dead(place.process.pid, self._shared)  # type: ignore[no-untyped-call]
            pause = place.backoff.after(now - place.started_at)
            place.restart_at = now + pause
            log.error("process %d of the API ended with %d; it starts again in %.1f s", index, code, pause)
        elif now >= place.restart_at:
            place.process, place.started_at, place.restart_at = self._start(index), now, None


def end_with(lifeline: int) -> None:
    """Start a thread that ends this process, as SIGTERM does, when the other end of the pipe is closed."""
    os.set_inheritable(lifeline, False)

    def wait() -> None:
        os.read(lifeline, 1)  # nothing is ever sent
        log.error("the process that started this one is gone: it ends")
        if (folder := shared_folder()) is not None:  # its owner cannot remove it any more
            shutil.rmtree(folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
