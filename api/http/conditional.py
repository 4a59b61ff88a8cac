"""What RFC 9110 asks of everything that can be got: HEAD beside GET (§9.3.2), and conditions on ETags (§13)."""

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
    """All that the client wants is sent: whoever makes the body may stop."""


class Representations:
    """ASGI middleware that lets every route of GET answer HEAD, and a condition where its answer has an ETag.

    The route runs as for GET, up to the first byte of the body: what is streamed is not begun.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Answer for ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass by what is neither HEAD nor a GET with a condition."""
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
            scope["method"] = method  # which those around us, and the server, go by
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
        except* _Answered:  # alone, or among the tasks that make a stream
            pass
        finally:
            scope["method"] = method


def matches(headers: Headers, etag: str) -> bool:
    """Whether ``If-Match`` lets a request pass: strong comparison, by which a weak tag equals nothing (§8.8.3.2)."""
    tags = _tags(headers, "if-match")
    return tags is None or ANY in tags or etag in tags


def is_current(headers: Headers, etag: str) -> bool:
    """Whether ``If-None-Match`` names what would be sent: weak comparison."""
    tags = _tags(headers, "if-none-match")
    return tags is not None and (ANY in tags or etag in {tag.removeprefix("W/") for tag in tags})


def _tags(headers: Headers, name: str) -> set[str] | None:
    """What a condition names; None where there is no such condition."""
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
