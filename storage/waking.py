"""Waking workers, for processes that seldom do it.

Celery is imported with the first wake-up, and the client of Redis, which takes 0.1 to 0.2 s, with the first ping.
"""

import threading
from typing import TYPE_CHECKING

from storage.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

PING_SECONDS = 2.0  # for the broker to answer


class BrokerUnreachable(Exception):
    """Redis cannot be reached; the text says why."""


class Waker:
    """Sends wake-ups through the broker that the settings name; for any thread."""

    def __init__(self, settings: Settings) -> None:
        """Raise ValueError if the settings name no broker; it is not reached yet."""
        self._settings, self._url = settings, settings.redis
        self._lock = threading.Lock()
        self._app: Celery | None = None

    def wake(self, increment_id: str) -> None:
        """Tell the workers that there is something to do; raises `BrokerUnreachable`."""
        from kombu.exceptions import OperationalError

        from storage.broker import celery_app, wake_worker

        with self._lock:
            if self._app is None:
                self._app = celery_app(self._settings)
        try:
            wake_worker(self._app, increment_id)
        except OperationalError as error:
            raise BrokerUnreachable(str(error)) from error

    def ping(self) -> None:
        """Ask the broker for an answer; raises `BrokerUnreachable`."""
        import redis

        timeouts = {"socket_timeout": PING_SECONDS, "socket_connect_timeout": PING_SECONDS}
        try:
            with redis.Redis.from_url(self._url, **timeouts) as broker:
                broker.ping()
        except (redis.RedisError, OSError, ValueError) as error:
            raise BrokerUnreachable(str(error)) from error
