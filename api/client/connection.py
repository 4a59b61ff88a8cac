"""One HTTP connection to the service, and its problem documents as exceptions."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from api.client.paths import host_of, is_loopback
from storage import safetext

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 5.0
CHUNK_BYTES = 256 << 10  # of a file that is sent or saved
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0  # before a request is sent again
BROKE_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_KEY = re.compile(r"[\x21-\x7e]*")
# User name and password of an address (up to the last @, since a password may hold one), and its query and fragment.
_CONFIDENTIAL = re.compile(r"^([A-Za-z0-9+.-]+://)?[^?#]*@|[?#].*", re.DOTALL)


class ClientError(Exception):
    """Base of all errors that the client raises; the message is meant for the user."""


class Unreachable(ClientError):
    """No answer: the service does not run, or the connection broke."""


class Problem(ClientError):
    """The service refused; the message is the problem document's detail."""

    def __init__(self, *, status: int, kind: str, detail: str, extra: Mapping[str, Any]) -> None:
        """Keep the document's parts: HTTP status, kind such as ``model-not-found``, detail, further members."""
        super().__init__(detail)
        self.status, self.kind, self.detail, self.extra = status, kind, detail, extra


class _Stranger(ClientError):
    """The server at this address is not an Accrete service."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url} does not answer as an Accrete service does: is the address right (ACCRETE_URL, --url)?"
        )


class Unauthenticated(Problem):
    """401: the service asks for an API key, or for another one."""


class Forbidden(Problem):
    """403: the key does not allow the request."""


class RateLimited(Problem):
    """429: too many requests with this key; ``extra["retry_after"]`` is the number of seconds to wait."""


class NotFound(Problem):
    """404: something named in the request does not exist."""


class Conflict(Problem):
    """409: the request conflicts with the present state of the model, batch or increment."""


class PreconditionFailed(Problem):
    """412: somebody else has changed the resource since its ETag was read."""


class TooLarge(Problem):
    """413: the request exceeds a limit on size."""


class Invalid(Problem):
    """400 or 422: the request can never succeed as it is."""


class Unavailable(Problem):
    """502, 503 or 504: the same request may succeed later, perhaps after ``extra["retry_after"]`` seconds."""


PASSING = (Unreachable, Unavailable, RateLimited)  # another try may succeed

_BY_STATUS: dict[int, type[Problem]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    422: Invalid,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


class Service(ABC):
    """What connections of both kinds know of a service: its address, and what an answer of it looks like."""

    def __init__(self, url: str, *, key: str | None = None, timeout_seconds: float, retries: int = 0) -> None:
        """Prepare the connection, which the first request opens; raises ClientError for a malformed address or key.

        ``retries``: how often a request that may be repeated is sent again, where another try may succeed.
        Proxy settings of the environment are not used for a service on this machine.
        """
        self.url = shown(url).rstrip("/")  # as messages show it
        self.retries = retries
        key = (key or "").strip()
        if not _KEY.fullmatch(key):
            raise ClientError(
                "the API key contains blanks, line breaks or other characters that no key has: copy it again"
            )
        try:
            self._open(
                base_url=url.rstrip("/"),
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
                trust_env=not is_loopback(host_of(url)),
            )
        except (ValueError, httpx.InvalidURL):  # its message may quote a password
            raise ClientError(f"{self.url!r} is no address of a service: give one such as {DEFAULT_URL}") from None

    @abstractmethod
    def _open(self, **arguments: Any) -> None:
        """Make the HTTP client from its arguments."""

    def pauses(self, method: str, arguments: Mapping[str, Any]) -> Iterator[float | None]:
        """Seconds to wait after each try of a request that fails; None after the last.

        What changes nothing may be repeated (RFC 9110, 9.2.2), and what bears an Idempotency-Key; not a body that comes
        piece by piece.
        """
        safe = method == "GET" or "Idempotency-Key" in (arguments.get("headers") or {})
        if safe and arguments.get("content") is None:
            yield from (FIRST_PAUSE_SECONDS * 2**number for number in range(self.retries))
        yield None

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Say which service could not be reached instead of which socket call failed."""
        try:
            yield
        except httpx.ConnectError as error:
            why = safetext.discreet(str(error))
            raise Unreachable(
                f"cannot reach {self.url} ({why}): is the service running? Start it with `accrete up`"
            ) from error
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} did not answer in time") from error
        except httpx.TransportError as error:
            raise Unreachable(f"the connection to {self.url} broke: {safetext.discreet(str(error))}") from error

    def document(self, response: httpx.Response) -> Any:
        """The JSON document of an answer."""
        try:
            return response.json()
        except ValueError as error:
            raise _Stranger(self.url) from error

    def page(self, document: Any) -> tuple[list[Any], str | None]:
        """The items of a page of a list, and the cursor of the next page."""
        if not isinstance(document, dict) or not {"items", "next_cursor"} <= document.keys():
            raise _Stranger(self.url)
        return document["items"], document["next_cursor"]


class Connection(Service):
    """Requests to one service; every answer but success raises a `ClientError`.

    `api.client.asynchronous.connection` has the same methods, to be awaited.
    """

    _http: httpx.Client

    def _open(self, **arguments: Any) -> None:
        self._http = httpx.Client(**arguments)

    def close(self) -> None:
        """Close the sockets."""
        self._http.close()

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request and return its successful answer; parameters that are None are left out."""
        leave_out_nones(arguments)
        for pause in self.pauses(method, arguments):
            try:
                return self._answered(method, path, **arguments)
            except PASSING as error:
                if pause is None:
                    raise
                time.sleep(pause_after(error, least=pause))
        raise AssertionError("the last pause is None")

    def _answered(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request once, or a GET again on another connection where one breaks off."""
        with self.reached():
            try:
                response = self._http.request(method, path, **arguments)
            except BROKE_OFF:
                if method != "GET":
                    raise
                # The server may close a kept-alive connection at any time, for example after it refused an upload. A
                # GET changes nothing, so it may then be repeated (RFC 9110, 9.2.2).
                response = self._http.request(method, path, **arguments)
        raise_for_problem(response)
        return response

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """Send a request and return the JSON document of the answer."""
        return self.document(self.request(method, path, **arguments))

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            items, cursor = self.page(self.json("GET", path, params={**params, "cursor": cursor}))
            yield from items
            if cursor is None:
                return

    @contextmanager
    def stream(self, method: str, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        """An answer whose body is read as it comes."""
        leave_out_nones(arguments)
        with self.reached(), self._http.stream(method, path, **arguments) as response:
            if response.is_error:
                response.read()
            raise_for_problem(response)
            yield response

    def save(self, path: str, file: Path, **params: Any) -> None:
        """Write the body of an answer to a file, which appears once all of it has come."""
        unfinished = file.with_name(f"{file.name}.part")
        try:
            with self.stream("GET", path, params=params) as response, unfinished.open("wb") as target:
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    target.write(chunk)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)


def leave_out_nones(arguments: dict[str, Any]) -> None:
    """Take out of the arguments of a request the parameters that are None."""
    if (params := arguments.get("params")) is not None:
        arguments["params"] = {name: value for name, value in params.items() if value is not None}


def pause_after(error: Exception, *, least: float) -> float:
    """Seconds to wait before the next try: what the service said, within bounds, or else ``least``."""
    told = error.extra.get("retry_after") if isinstance(error, Problem) else None
    return max(least, min(float(told), LONGEST_PAUSE_SECONDS)) if isinstance(told, int | float) else least


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the exception of a problem document, or of any other error page."""
    if response.is_success:
        return
    document: dict[str, Any] = {}
    if response.headers.get("content-type", "").partition(";")[0] == "application/problem+json":
        with suppress(ValueError):
            document = response.json()
    extra = {name: value for name, value in document.items() if name not in {"type", "title", "status", "detail"}}
    if (wait := response.headers.get("Retry-After", "")).isdecimal():
        extra.setdefault("retry_after", int(wait))
    said = f"{response.status_code} {response.reason_phrase}: {response.text[:200].strip()}"
    fallback = f"{shown(str(response.url))} answered {said}"
    raise _BY_STATUS.get(response.status_code, Problem)(
        status=response.status_code,
        kind=str(document.get("type", "about:blank")).rpartition("/")[2],
        detail=str(document.get("detail") or fallback),
        extra=extra,
    )


def shown(url: str) -> str:
    """An address as messages show it: without user name, password, query and fragment."""
    return safetext.line(_CONFIDENTIAL.sub(lambda found: found[1] or "", url))
