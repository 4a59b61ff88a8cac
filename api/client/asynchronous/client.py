"""The asynchronous twin of `api.client.client`: written by `make types`; change that module instead."""

from types import TracebackType

from api.client.asynchronous.browsing import AsyncBrowsingCalls
from api.client.asynchronous.classes import AsyncClassCalls
from api.client.asynchronous.connection import AsyncConnection
from api.client.asynchronous.models import AsyncModelCalls
from api.client.asynchronous.predictions import AsyncPredictionCalls
from api.client.asynchronous.teaching import AsyncTeachingCalls
from api.client.asynchronous.versions import AsyncVersionCalls
from api.client.connection import DEFAULT_URL


class AsyncClient(
    AsyncModelCalls, AsyncClassCalls, AsyncTeachingCalls, AsyncBrowsingCalls, AsyncVersionCalls, AsyncPredictionCalls
):
    """A connection to a running service; closes with the ``async with`` statement."""

    def __init__(
        self, url: str = DEFAULT_URL, *, key: str | None = None, timeout_seconds: float = 60.0, retries: int = 0
    ) -> None:
        """Take the service's address and, if the service asks for one, an API key; nothing is sent yet.

        A request that finds no service, or that is refused only for now (429, 502, 503, 504), is sent again ``retries``
        times if that is safe: if it reads, or has an Idempotency-Key and no upload. The pause is what the service asks
        for, at most 30 s, or else 0.2 s and twice as long each time.
        Raises ClientError for a malformed address or key.
        """
        self._connection = AsyncConnection(url, key=key, timeout_seconds=timeout_seconds, retries=retries)

    async def __aenter__(self) -> "AsyncClient":
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self._connection.close()
