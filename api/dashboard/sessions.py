"""Sessions of the dashboard: an API key stays in this process's memory, and a browser knows a random id of it."""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from api.client.asynchronous.client import AsyncClient

COOKIE = "accrete_session"
LIFETIME_SECONDS = 12 * 3600.0  # without use
CAPACITY = 1000  # sessions; of more, the one that was used least recently ends


@dataclass
class _Session:
    key: str = field(repr=False)
    used_at: float


class Sessions:
    """The keys of the browsers that have given one, and clients of the API with these keys."""

    def __init__(self, api: str) -> None:
        """Take the address of the API."""
        self.api = api
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._clients: dict[str | None, AsyncClient] = {}

    def begin(self, key: str) -> str:
        """Remember a key; the id for the browser."""
        number = secrets.token_urlsafe(32)
        self._sessions[number] = _Session(key, time.monotonic())
        while len(self._sessions) > CAPACITY:
            self._sessions.popitem(last=False)
        return number

    def end(self, number: str | None) -> None:
        """Forget the key of a session."""
        self._sessions.pop(number or "", None)

    def key_of(self, connection: HTTPConnection) -> str | None:
        """The key of the browser that sent a request; None without a session, or after it was long unused."""
        number = connection.cookies.get(COOKIE, "")
        if (session := self._sessions.get(number)) is None:
            return None
        now = time.monotonic()
        if now - session.used_at > LIFETIME_SECONDS:
            del self._sessions[number]
            return None
        session.used_at = now
        self._sessions.move_to_end(number)
        return session.key

    def client_of(self, connection: HTTPConnection) -> AsyncClient:
        """The client of the API that acts for the browser that sent a request."""
        return self.client(self.key_of(connection))

    def client(self, key: str | None) -> AsyncClient:
        """A client with a key, or with none; one for all who have the same."""
        if key not in self._clients:
            self._clients[key] = AsyncClient(self.api, key=key)
        return self._clients[key]

    async def tidy(self) -> None:
        """Close the clients of keys that no session has any more."""
        used = {None, *(session.key for session in self._sessions.values())}
        for key in [key for key in self._clients if key not in used]:
            await self._clients.pop(key).__aexit__(None, None, None)

    async def close(self) -> None:
        """Forget every key, and close every client."""
        self._sessions.clear()
        await self.tidy()
        if None in self._clients:
            await self._clients.pop(None).__aexit__(None, None, None)
