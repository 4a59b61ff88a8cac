"""Limits on the size of a request's body, and the check that it is as long as declared."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies.media_types import media_type
from storage.errors import Invalid, TooLarge
from storage.settings import Settings

KEPT = 1 << 16  # bytes; to read the rest of so short a body is cheaper than a new connection
_MAX_DIGITS = 18
_OTHER_WAYS = " Images as multipart files and tensors in binary may be larger."


class BodyLimit:
    """ASGI middleware: no request may send more bytes than its route allows."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        """Guard ``app`` by the limits of ``settings``."""
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what is received; the byte that crosses the limit ends the request with `TooLarge`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit, advice = self._limit(scope, headers)
        body = _Body(headers, receive, send, limit=limit, advice=advice)
        await self._app(scope, body.receive, body.send)

    def _limit(self, scope: Scope, headers: Headers) -> tuple[int, str]:
        """The route's limit in bytes, and advice for the error message."""
        path = scope["path"] if scope["method"] == "POST" else ""
        is_json = media_type(headers) == "application/json"
        if path.endswith(("/increments", "/batches")) and not is_json:
            return self._settings.max_upload_bytes, ""
        if path.endswith("/infer"):
            is_json = "inference-header-content-length" not in headers
        elif not path.endswith(("/predictions", "/images")):
            return self._settings.max_json_bytes, ""
        is_image = not path.endswith("/infer") and media_type(headers) != "multipart/form-data"
        if is_image and not is_json:
            return min(self._settings.max_image_bytes, self._settings.max_request_bytes), ""
        if is_json:
            return min(self._settings.max_prediction_json_bytes, self._settings.max_request_bytes), _OTHER_WAYS
        return self._settings.max_request_bytes, ""


class _Body:
    """One request's body on its way in."""

    def __init__(self, headers: Headers, receive: Receive, send: Send, *, limit: int, advice: str) -> None:
        length = headers.get("content-length", "")
        self._declared = int(length) if length.isdecimal() and len(length) <= _MAX_DIGITS else None
        self._receive, self._send, self._limit, self._advice = receive, send, limit, advice
        self._count = 0
        is_chunked = "transfer-encoding" in headers
        self._is_whole = not (self._declared or is_chunked)
        self._is_costly = is_chunked or "expect" in headers or (self._declared or 0) > KEPT

    async def receive(self) -> Message:
        """The next message; raises `TooLarge` beyond the limit, `Invalid` if the body is not as long as declared."""
        if (self._declared or 0) > self._limit:  # before `100 Continue` is sent to a client that waits for it
            raise self._too_large()
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        self._count += len(message.get("body", b""))
        if self._count > self._limit:
            raise self._too_large()
        if not message.get("more_body", False):
            self._is_whole = True
            if self._declared is not None and self._declared != self._count:
                raise Invalid(f"The body was declared to be {self._declared:,} bytes, but {self._count:,} came.")
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on; close the connection if the body was not read to its end, or else all of it would come."""
        if message["type"] == "http.response.start" and not self._is_whole and self._is_costly:
            MutableHeaders(scope=message)["Connection"] = "close"
        await self._send(message)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The body is larger than the {self._limit:,} bytes allowed here.{self._advice}", limit=self._limit
        )
