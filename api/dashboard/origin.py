"""Requests that change something, and the page's socket, are for pages of this dashboard alone."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SAFE = frozenset({"GET", "HEAD"})
SOCKET = "/_nicegui_ws/"


class SameOrigin:
    """Middleware that refuses what a page of another origin sends."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or hand the request on."""
        if _is_guarded(scope) and not _is_of_here(Headers(scope=scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await PlainTextResponse("This is for pages of the dashboard.", 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_guarded(scope: Scope) -> bool:
    if scope["type"] == "websocket":
        return True
    return scope["type"] == "http" and (scope["method"] not in SAFE or scope["path"].startswith(SOCKET))


def _is_of_here(headers: Headers) -> bool:
    """Whether the page's origin is this host; browsers send no Origin with a GET of their own host's page."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
    return urlsplit(origin).netloc == headers.get("host", "")
