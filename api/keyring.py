"""The API keys in force, at hand without a look into the database, and how fast each may ask."""

import logging
import threading
import time
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from storage import keys
from storage.database import Database
from storage.domain import Key

log = logging.getLogger(__name__)


@dataclass
class Bucket:
    """Tokens that fill at a rate, as many as come in a second; a request takes one (a token bucket)."""

    rate: float  # tokens a second
    seen: float  # seconds on some clock
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin full."""
        self.tokens = self._most

    @property
    def _most(self) -> float:
        return max(1.0, self.rate)

    def wait(self, now: float) -> float:
        """Take a token: 0; or the seconds until there is one again."""
        self.tokens = min(self._most, self.tokens + (now - self.seen) * self.rate)
        self.seen = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return 0.0


class KeyRing:
    """Keys by their digests, read anew all the time, so that a revocation works within a second.

    Without the database the keys last seen stay good: predictions go on. Rates count in this process alone.
    """

    def __init__(self, database: Database, *, watch_seconds: float) -> None:
        """Know no key before `start`."""
        self._database, self._watch_seconds = database, watch_seconds
        self._keys: dict[str, Key] = {}
        self._buckets: dict[str, Bucket] = {}
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
        if key.rate is None:
            return 0.0
        now = time.monotonic()
        bucket = self._buckets.setdefault(key.id, Bucket(key.rate, now))
        return bucket.wait(now)

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
