"""The worker's end of an upgrade (`trainer.process.upgrade`): a process of the lowest priority, once at a start."""

import logging
import subprocess
import sys
import threading

from storage.database.engine import Database
from storage.history import versions
from trainer.networks.manifest import EXECUTABLE

log = logging.getLogger(__name__)


class Upgrading:
    """A process that gives network.onnx to versions without it, if there are any; increments go on meanwhile."""

    def __init__(self, database: Database) -> None:
        """Prepare; nothing is read before `start`."""
        self._database = database
        self._lock = threading.Lock()  # of the two attributes below
        self._closed = False
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Look, on a thread of its own, whether there is something to do, and start the process if so."""
        threading.Thread(target=self._run, name="upgrading", daemon=True).start()

    def close(self) -> None:
        """End the process; the next start of a worker takes up what is left."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        try:
            with self._database.read() as connection:
                lacking = len(versions.without_file(connection, EXECUTABLE))
            process = self._begun() if lacking else None
            if process is None:
                return
            log.info("%d versions have no %s: it is added to them in the background", lacking, EXECUTABLE)
            assert process.stdout is not None
            for line in process.stdout:
                log.info("upgrade: %s", line.rstrip())
            if (status := process.wait()) and not self._closed:
                log.error("the upgrade ended early, with exit status %d: `accrete upgrade` goes on with it", status)
        except Exception:  # such as a database that is away; increments are not concerned
            log.exception("versions could not be upgraded: `accrete upgrade` does it")

    def _begun(self) -> "subprocess.Popen[str] | None":
        """The process; None if there is to be none any more. It ends with this one, whose pipe then closes."""
        with self._lock:
            if self._closed:
                return None
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.process.upgrade", "--attached"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # its priority counts against other sessions, where Linux has autogroups
            )
            return self._process
