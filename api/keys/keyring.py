"""The valid API keys, held in memory so that requests need no look into the database, and their rate limits."""

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
    """Valid keys by their digests, read again every ``watch_seconds``, so that a revocation works within a second.

    While the database does not answer, the keys last read stay valid, so that predictions go on.
    """

    def __init__(self, database: Database, *, watch_seconds: float, shared: Path | None = None) -> None:
        """Hold no key before `start`; ``shared`` is a folder common to all processes that share a port."""
        self._database, self._watch_seconds = database, watch_seconds
        self._keys: dict[str, Key] = {}
        self._rates = Rates(shared)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)

    def start(self) -> None:
        """Start the thread that reads the keys."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self._thread.join()

    def known(self, digest: str) -> Key | None:
        """The valid key with that digest, None if it has not been read yet."""
        return self._keys.get(digest)

    def look_up(self, digest: str) -> Key | None:
        """The valid key with that digest, read from the database: it may be only a moment old."""
        with self._database.read() as connection:
            return keys.of_digest(connection, digest)

    def wait(self, key: Key) -> float:
        """Count a request of this key: 0 if it may pass, else the seconds to wait; call it on the event loop only."""
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
