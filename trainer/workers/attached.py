"""Processes of the lowest priority that a worker starts beside increments, and that end with it."""

import logging
import subprocess
import sys
import threading

log = logging.getLogger(__name__)


class Attached:
    """At most one process of a Python module at a time; what it says is logged."""

    def __init__(self, module: str, *, name: str) -> None:
        """Prepare to run ``module``; lines of the log begin with ``name``."""
        self._module, self._name = module, name
        self._lock = threading.Lock()  # of the two attributes below
        self._closed = False
        self._process: subprocess.Popen[str] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def run(self) -> int:
        """Start the process and wait for it; its exit status, 0 if it was ended with this worker."""
        process = self._begun()
        if process is None:
            return 0
        assert process.stdout is not None
        for line in process.stdout:
            log.info("%s: %s", self._name, line.rstrip())
        status = process.wait()
        return 0 if self._closed else status

    def close(self) -> None:
        """End the process, and start none any more."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _begun(self) -> "subprocess.Popen[str] | None":
        """The process; None if there is to be none any more. It ends with this one, whose pipe then closes."""
        with self._lock:
            if self._closed:
                return None
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, "--attached"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # its priority counts against other sessions, where Linux has autogroups
            )
            return self._process
