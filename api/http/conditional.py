"""What RFC 9110 requires of every resource with GET: HEAD (§9.3.2), and conditional requests by ETag (§13)."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http import problems
from storage.errors import PreconditionFailed

ANY = "*"
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_OF_THE_BODY = ("content-length", "content-type", "content-encoding", "transfer-encoding")
_OK = 200


class _Answered(Exception):
    """Everything that the client wants has been sent; raised to stop the code that makes the body."""


class Representations:
    """ASGI middleware: every GET route also answers HEAD, and obeys If-Match and If-None-Match if it sends an ETag.

    The route runs as for GET until it sends its headers. If no body is needed, a stream is not begun.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Answer for ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle HEAD, and GET with a condition; pass on every other request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        conditional = "if-match" in headers or "if-none-match" in headers
        if scope["type"] != "http" or not (scope["method"] == "HEAD" or (scope["method"] == "GET" and conditional)):
            await self._app(scope, receive, send)
            return
        method, scope["method"] = scope["method"], "GET"

        async def selected(message: Message) -> None:
            if message["type"] != "http.response.start":
                await send(message)
                return
            scope["method"] = method  # outer middleware and the server look at it
            if message["status"] == _OK and (etag := Headers(scope=message).get("etag")) is not None:
                if not matches(headers, etag):
                    answer = await problems.answer(Request(scope), _failed(etag))
                    await answer(scope, receive, send)
                    raise _Answered
                if is_current(headers, etag):
                    await _send_bare(_unmodified(message), send)
            if method == "HEAD":
                await _send_bare(message, send)
            await send(message)

        try:
            await self._app(scope, receive, selected)
        except* _Answered:  # raised alone, or in the task group of a stream
            pass
        finally:
            scope["method"] = method


def matches(headers: Headers, etag: str) -> bool:
    """Whether ``If-Match`` allows the request. Comparison is strong: a weak ETag never matches (§8.8.3.2)."""
    tags = _tags(headers, "if-match")
    return tags is None or ANY in tags or etag in tags


def is_current(headers: Headers, etag: str) -> bool:
    """Whether ``If-None-Match`` names the ETag of the answer. Comparison is weak."""
    tags = _tags(headers, "if-none-match")
    return tags is not None and (ANY in tags or etag in {tag.removeprefix("W/") for tag in tags})


def _tags(headers: Headers, name: str) -> set[str] | None:
    """The ETags in a header such as If-Match; None without this header."""
    if name not in headers:
        return None
    said = ", ".join(headers.getlist(name))
    return {ANY} if said.strip() == ANY else {found.group() for found in _TAG.finditer(said)}


def _failed(etag: str) -> PreconditionFailed:
    return PreconditionFailed(f"If-Match does not name what is there now, whose ETag is {etag}: get it anew.")


def _unmodified(message: Message) -> Message:
    """The head of an answer, as 304 repeats it (§15.4.5)."""
    changed = {**message, "status": 304, "headers": list(message["headers"])}
    for name in _OF_THE_BODY:
        del MutableHeaders(scope=changed)[name]
    return changed


async def _send_bare(message: Message, send: Send) -> None:
    """Send the head of an answer and no body."""
    await send(message)
    await send({"type": "http.response.body", "body": b""})
    raise _Answered
