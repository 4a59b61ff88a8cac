"""Checks that a request's headers Host and Origin are well-formed, before other code reads them."""

import re
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http import problems
from storage.errors import Malformed

# Host (RFC 9112 §3.2): a host, optionally with a port. Origin (RFC 6454 §7): a scheme and such a host, or null.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(:\d{0,5})?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WITH_HOST = "1.1"  # the version that requires a Host; HTTP/1.0 does not


class Addresses:
    """ASGI middleware that refuses requests whose Host or Origin cannot be read."""

    def __init__(self, app: ASGIApp) -> None:
        """Check the requests to ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with one Host and at most one Origin; answer others with `Malformed`."""
        fault = _fault(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        # without these headers, so that the request has a valid address while it is answered
        named = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in {b"host", b"origin"}]}
        answer = await problems.answer(Request(named), Malformed(fault))
        answer.headers["Connection"] = "close"
        await answer(scope, receive, send)


def _fault(scope: Scope) -> str | None:
    """What is wrong with a request's Host or Origin; None if nothing is."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    if len(hosts) > 1 or (not hosts and scope["http_version"] == _WITH_HOST):
        return f"A request has one Host header, this one has {len(hosts) or 'none'}: send the host you ask."
    if any(not is_host(host.decode("latin-1")) for host in hosts):
        return "The Host header is no host with a port of 0 to 65535: send the one you ask, such as localhost:8000."
    if len(origins) > 1 or any(not is_origin(origin.decode("latin-1")) for origin in origins):
        return "The Origin header is none: browsers send one such as https://example.org, or null."
    return None


@lru_cache(maxsize=1024)
def is_host(text: str) -> bool:
    """Whether a Host header is well-formed."""
    if not _HOST.fullmatch(text):
        return False
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname is not None and (parts.port is None or parts.port >= 0)  # both raise if malformed
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def is_origin(text: str) -> bool:
    """Whether an Origin header is well-formed."""
    scheme = _SCHEME.match(text)
    return text == "null" or (scheme is not None and (scheme.end() == len(text) or is_host(text[scheme.end() :])))
