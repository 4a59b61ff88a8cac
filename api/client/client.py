"""The Python client: everything the HTTP contract offers, typed.

with Client() as client:
    increment = client.start_increment("products", Path("new-classes.zip"))
    for event in client.events(increment["id"]):
        print(event.kind, event.data)
"""

from types import TracebackType

from api.client.browsing import BrowsingCalls
from api.client.classes import ClassCalls
from api.client.connection import DEFAULT_URL, Connection
from api.client.events import Event
from api.client.models import ModelCalls
from api.client.predictions import PredictionCalls
from api.client.teaching import IncrementFailed, TeachingCalls, succeeded
from api.client.versions import VersionCalls

__all__ = ["Client", "Event", "IncrementFailed", "succeeded"]


class Client(ModelCalls, ClassCalls, TeachingCalls, BrowsingCalls, VersionCalls, PredictionCalls):
    """A connection to a running service; closes with the ``with`` statement."""

    def __init__(
        self, url: str = DEFAULT_URL, *, key: str | None = None, timeout_seconds: float = 60.0, retries: int = 0
    ) -> None:
        """Take the service's address and, if the service asks for one, an API key; nothing is sent yet.

        A request that finds no service, or that is refused only for now (429, 502, 503, 504), is sent again ``retries``
        times if that is safe: if it reads, or has an Idempotency-Key and no upload. The pause is what the service asks
        for, at most 30 s, or else 0.2 s and twice as long each time.
        Raises ClientError for a malformed address or key.
        """
        self._connection = Connection(url, key=key, timeout_seconds=timeout_seconds, retries=retries)

    def __enter__(self) -> "Client":
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._connection.close()
