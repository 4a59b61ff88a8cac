"""The worker's end of an upgrade (`trainer.process.upgrade`): a process of the lowest priority, once at a start."""

import logging
import threading

from storage.database.engine import Database
from storage.history import versions
from trainer.networks.manifest import EXECUTABLE
from trainer.workers.attached import Attached

log = logging.getLogger(__name__)


class Upgrading:
    """A process that gives network.onnx to versions without it, if there are any; increments go on meanwhile."""

    def __init__(self, database: Database) -> None:
        """Prepare; nothing is read before `start`."""
        self._database = database
        self._attached = Attached("trainer.process.upgrade", name="upgrade")

    def start(self) -> None:
        """Look, on a thread of its own, whether there is something to do, and start the process if so."""
        threading.Thread(target=self._run, name="upgrading", daemon=True).start()

    def close(self) -> None:
        """End the process; the next start of a worker takes up what is left."""
        self._attached.close()

    def _run(self) -> None:
        try:
            with self._database.read() as connection:
                lacking = len(versions.without_file(connection, EXECUTABLE))
            if not lacking:
                return
            log.info("%d versions have no %s: it is added to them in the background", lacking, EXECUTABLE)
            if status := self._attached.run():
                log.error("the upgrade ended early, with exit status %d: `accrete upgrade` goes on with it", status)
        except Exception:  # such as a database that is away; increments are not concerned
            log.exception("versions could not be upgraded: `accrete upgrade` does it")
