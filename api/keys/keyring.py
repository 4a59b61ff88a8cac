"""The API keys in force, at hand without a look into the database, and how fast each may ask."""

import logging
import threading
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from api.keys.rates import Rates
from storage.database.engine import Database
from storage.domain import Key
from storage.requests import keys

log = logging.getLogger(__name__)


class KeyRing:
    """Keys by their digests, read anew all the time, so that a revocation works within a second.

    Without the database the keys last seen stay good: predictions go on.
    """

    def __init__(self, database: Database, *, watch_seconds: float, shared: Path | None = None) -> None:
        """Know no key before `start`; ``shared`` is a folder of all processes that share a port."""
        self._database, self._watch_seconds = database, watch_seconds
        self._keys: dict[str, Key] = {}
        self._rates = Rates(shared)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)

    def start(self) -> None:
        """Go on reading the keys; one that is not seen yet is looked up."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stopped.set()
        self._thread.join()

    def known(self, digest: str) -> Key | None:
        """The key in force with that digest, if it has been seen."""
        return self._keys.get(digest)

    def look_up(self, digest: str) -> Key | None:
        """The same for one that may be a moment old."""
        with self._database.read() as connection:
            return keys.of_digest(connection, digest)

    def wait(self, key: Key) -> float:
        """Seconds until this key may ask again, 0 if now; called from the event loop alone."""
        return 0.0 if key.rate is None else self._rates.wait(key.id, key.rate)

    def _watch(self) -> None:
        while True:
            try:
                self._refresh()
            except SQLAlchemyError as error:
                log.warning("keys cannot be looked for: %s", error)
            if self._stopped.wait(self._watch_seconds):
                return

    def _refresh(self) -> None:
        with self._database.read() as connection:
            self._keys = {key.digest: key for key in keys.in_force(connection)}
