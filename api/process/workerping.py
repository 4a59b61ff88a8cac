"""Whether the Celery worker still listens: after a restart of Redis a worker can stay silent for ever (FAULTS)."""

import threading
import time
from collections.abc import Callable

import kombu.exceptions
import redis
from celery import Celery

from api.process.privateredis import answers

_STARTING_REPLY_SECONDS = 0.5  # a ping sent before the worker listens is lost, so they are frequent: a person waits
_REPLY_SECONDS = 4.0
_STARTING_SECONDS = 120.0  # how long a worker may take until its first answer
_QUICK_RECONNECT = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}


class WorkerPing:
    """Pings one worker repeatedly, in a thread, and knows for how long it has not answered."""

    def __init__(
        self,
        ping: Callable[[float], bool],
        broker_answers: Callable[[], bool],
        *,
        limit_seconds: float,
        period_seconds: float = 5.0,
    ) -> None:
        """Take a function that pings, with a timeout in seconds, and one that tells whether the broker itself answers.

        While the broker does not answer, the worker does not count as silent.
        """
        self._ping, self._broker_answers = ping, broker_answers
        self._limit_seconds, self._period_seconds = limit_seconds, period_seconds
        self._silent_since: float | None = None  # monotonic seconds of the first of the unanswered pings
        self._answered = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def restarted(self) -> None:
        """Forget the answers of the old process, because a new one has started."""
        self._answered, self._silent_since = False, None
        if self._thread.ident is None:
            self._thread.start()

    def answered(self) -> bool:
        """Whether this process has answered at least once."""
        return self._answered

    def failing(self) -> str | None:
        """Why the worker has to be restarted; None if it has not."""
        since = self._silent_since
        limit_seconds = self._limit_seconds if self._answered else _STARTING_SECONDS
        if since is None or (silent_seconds := time.monotonic() - since) < limit_seconds:
            return None
        return f"it has not answered for {silent_seconds:.0f} s"

    def end(self) -> None:
        """Stop pinging."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._period_seconds if self._answered else 0.1):
            asked_at = time.monotonic()
            if not self._broker_answers():
                self._silent_since = None
            elif self._ping(_REPLY_SECONDS if self._answered else _STARTING_REPLY_SECONDS):
                self._answered, self._silent_since = True, None
            elif self._silent_since is None:
                self._silent_since = asked_at


def worker_ping(
    app: Celery, redis_url: str, node: str, *, limit_seconds: float = 45.0, period_seconds: float = 5.0
) -> WorkerPing:
    """A ping of one node by its name, each over a new connection, so that a stale one cannot mislead."""

    def ping(seconds: float) -> bool:
        try:
            with app.connection_for_write(transport_options=_QUICK_RECONNECT) as connection:
                return bool(app.control.ping(destination=[node], timeout=seconds, connection=connection))
        except (kombu.exceptions.KombuError, redis.RedisError, OSError):  # the broker's errors, by three libraries
            return False

    return WorkerPing(ping, lambda: answers(redis_url), limit_seconds=limit_seconds, period_seconds=period_seconds)
