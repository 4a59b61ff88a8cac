"""Gives every request an id, an answer even after an error, a log line, metrics, and its outcome in the audit log."""

import logging
import re
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http import auditing
from storage.logs import request_id

HEADER = "X-Request-ID"
ARRIVED_AT = "arrived_at"  # in the state of a request: when its headers had come, by time.monotonic()
NO_ROUTE = "none"  # metrics label of requests without a route: their paths are arbitrary
_ACCEPTED = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_FIRST_ERROR = 400
_UNANSWERED = 500

log = logging.getLogger("api.requests")


class Observer:
    """ASGI middleware around everything else; counts in the `Measures` of the application's service."""

    def __init__(self, app: ASGIApp, *, failed: Callable[[Request, Exception], Awaitable[Response]]) -> None:
        """Observe the answers of ``app``; if it raises, ``failed`` answers, and that answer is observed too."""
        self._app, self._failed = app, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request under an id: that of its header X-Request-ID if it is well-formed, else a new one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        brought = Headers(scope=scope).get(HEADER, "")
        scope.setdefault("state", {})[ARRIVED_AT] = time.monotonic()
        own = brought if _ACCEPTED.fullmatch(brought) else uuid4().hex
        request_id.set(own)  # in the task of this request only; never reset, as the server logs errors later
        status: int | None = None  # None until an answer begins
        noted, began = False, time.perf_counter()

        def note() -> None:
            nonlocal noted
            if not noted:
                noted = True
                self._note(scope, status or _UNANSWERED, time.perf_counter() - began)

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = own
                if scope["app"].state.service.draining.is_set():
                    headers["Connection"] = "close"  # so that the client's next request goes to another process
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                note()  # before the end of the body is sent: a client with its answer finds it counted and logged
            await send(message)

        try:
            await self._app(scope, receive, answered)
        except Exception as error:
            if status is None:
                await (await self._failed(Request(scope), error))(scope, receive, answered)
            raise  # the server decides about the connection
        finally:
            note()  # of an answer that failed, or whose client left, before its end
            await auditing.end(scope, status)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        measures = scope["app"].state.service.measures
        measures.requests.labels(method, route, str(status)).inc()
        measures.request_seconds.labels(route).observe(seconds)
        # changes and failures are logged as INFO; reads and predictions only as DEBUG, besides their metrics
        is_remarkable = status >= _FIRST_ERROR or not (method in {"GET", "HEAD"} or is_prediction(route))
        log.log(
            logging.INFO if is_remarkable else logging.DEBUG,
            "%s %s: %d in %.1f ms",
            method,
            scope["path"],
            status,
            1000 * seconds,
            extra={"method": method, "route": route, "status": status, "seconds": round(seconds, 6)},
        )


def is_prediction(route: str) -> bool:
    """Whether a route predicts: such requests change nothing, and are frequent."""
    return route.endswith(("/predictions", "/infer"))
