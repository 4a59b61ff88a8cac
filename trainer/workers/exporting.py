"""The worker's end of exports (`trainer.process.programs`): a process of the lowest priority while any are waiting."""

import logging
import threading

from storage.database.engine import Database
from storage.history import exports
from trainer.workers.attached import Attached

log = logging.getLogger(__name__)


class Exporting:
    """A process that makes the files of versions that somebody has asked for; increments go on meanwhile."""

    def __init__(self, database: Database) -> None:
        """Prepare; nothing is read before `look`."""
        self._database = database
        self._attached = Attached("trainer.process.programs", name="export")

    def look(self) -> None:
        """Start the process, on a thread of its own, if something is asked for that no process makes."""
        if self._attached.is_running:
            return
        with self._database.read() as connection:
            is_asked = bool(exports.waiting(connection))
        if is_asked:
            threading.Thread(target=self._run, name="exporting", daemon=True).start()

    def close(self) -> None:
        """End the process; the next worker takes up what is left."""
        self._attached.close()

    def _run(self) -> None:
        if status := self._attached.run():
            log.error("the process that makes exports ended with exit status %d; it is started again", status)
