"""One HTTP connection to the service, and its problem documents as exceptions."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from storage import safetext

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 5.0
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
    """502, 503 or 504: the same request may succeed later."""


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


class Connection:
    """Requests to one service; every answer but success raises a `ClientError`."""

    def __init__(self, url: str, *, key: str | None = None, timeout_seconds: float) -> None:
        """Prepare the connection, which the first request opens; raises ClientError for a malformed address or key.

        Proxy settings of the environment are not used for a service on this machine.
        """
        self.url = shown(url).rstrip("/")  # as messages show it
        key = (key or "").strip()
        if not _KEY.fullmatch(key):
            raise ClientError(
                "the API key contains blanks, line breaks or other characters that no key has: copy it again"
            )
        try:
            self._http = httpx.Client(
                base_url=url.rstrip("/"),
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
                trust_env=not _is_loopback(_host(url)),
            )
        except (ValueError, httpx.InvalidURL):  # its message may quote a password
            raise ClientError(f"{self.url!r} is no address of a service: give one such as {DEFAULT_URL}") from None

    def close(self) -> None:
        """Close the sockets."""
        self._http.close()

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request and return its successful answer; parameters that are None are left out."""
        if (params := arguments.get("params")) is not None:
            arguments["params"] = {name: value for name, value in params.items() if value is not None}
        with self._reached():
            try:
                response = self._http.request(method, path, **arguments)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                if method != "GET":
                    raise
                # The server may close a kept-alive connection at any time, for example after it refused an upload. A
                # GET changes nothing, so it may then be repeated (RFC 9110, 9.2.2).
                response = self._http.request(method, path, **arguments)
        _raise_for_problem(response)
        return response

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """Send a request and return the JSON document of the answer."""
        response = self.request(method, path, **arguments)
        try:
            return response.json()
        except ValueError as error:
            raise _Stranger(self.url) from error

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.json("GET", path, params={**params, "cursor": cursor})
            if not isinstance(page, dict) or not {"items", "next_cursor"} <= page.keys():
                raise _Stranger(self.url)
            yield from page["items"]
            if (cursor := page["next_cursor"]) is None:
                return

    @contextmanager
    def stream(self, method: str, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        """An answer whose body is read as it comes."""
        with self._reached(), self._http.stream(method, path, **arguments) as response:
            if response.is_error:
                response.read()
            _raise_for_problem(response)
            yield response

    @contextmanager
    def _reached(self) -> Iterator[None]:
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


def _raise_for_problem(response: httpx.Response) -> None:
    """Raise the exception of a problem document, or of any other error page."""
    if response.is_success:
        return
    document: dict[str, Any] = {}
    if response.headers.get("content-type", "").partition(";")[0] == "application/problem+json":
        with suppress(ValueError):
            document = response.json()
    said = f"{response.status_code} {response.reason_phrase}: {response.text[:200].strip()}"
    fallback = f"{shown(str(response.url))} answered {said}"
    raise _BY_STATUS.get(response.status_code, Problem)(
        status=response.status_code,
        kind=str(document.get("type", "about:blank")).rpartition("/")[2],
        detail=str(document.get("detail") or fallback),
        extra={name: value for name, value in document.items() if name not in {"type", "title", "status", "detail"}},
    )


def shown(url: str) -> str:
    """An address as messages show it: without user name, password, query and fragment."""
    return safetext.line(_CONFIDENTIAL.sub(lambda found: found[1] or "", url))


def _host(url: str) -> str:
    """The host of a service's address; raises ValueError if it is not a plain http or https address."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("no http or https, or more than an address")
    return parts.hostname


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
