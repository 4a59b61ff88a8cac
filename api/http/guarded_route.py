"""Checks of every route before its body is read: first the key, from headers alone, then the query and media type.

FastAPI reads and parses a body before it solves a route's dependencies. So these checks are not dependencies, but wrap
the route's handler.
"""

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import Any

from fastapi import Depends, Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute

from api.bodies import json_bodies, media_types
from api.http.access import allowed, on_record
from api.http.rights import right_among
from api.schemas.base import PageOut
from storage.domain import Scope
from storage.errors import Invalid, MediaTypeUnsupported

_READING = frozenset({"GET", "HEAD"})
_LENIENT = frozenset({"/metrics"})  # Prometheus and similar tools send parameters of their own
_UNPACKS = "/infer"  # end of the paths that take compressed bodies, which the protocol's clients send
_NOTHING = frozenset({b"", b"{}", b"null"})  # bodies that count as none: some clients always send one

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guarded(APIRoute):
    """A route that checks a request's key, query and media type before it reads a byte of the body."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: Collection[str] | None = None,
        dependencies: Sequence[params.Depends] | None = None,
        **options: Any,
    ) -> None:
        """Make FastAPI's route; long lists are serialised off the event loop, and changes go into the audit log.

        Raises `TypeError` unless ``dependencies`` name, once, the scope that a key needs (`api.http.rights.needs`).
        """
        self.right = right_among(dependencies or ())
        methods = list(methods or ["GET"])
        if self.right.scope is not Scope.PREDICT and not _READING.issuperset(methods):
            dependencies = [*(dependencies or ()), Depends(on_record)]
        shown = _written(endpoint) if _returns_page(endpoint) else endpoint
        super().__init__(path, shown, methods=methods, dependencies=dependencies, **options)

    def get_route_handler(self) -> Handler:
        """FastAPI's own handler, after the checks."""
        handle, check = super().get_route_handler(), self.checks()
        takes_body = bool(self._media_types())

        async def guarded(request: Request) -> Response:
            await check(request)
            bounded = _Bounded(request.scope, request.receive)
            if not takes_body and has_body(request) and (await bounded.body()).strip() not in _NOTHING:
                raise Invalid("This route takes no body: leave it out.")
            return await handle(bounded)

        return guarded

    def checks(self) -> Callable[[Request], Coroutine[Any, Any, None]]:
        """The checks before the body is read, in this order: key, query, content coding and media type."""
        known = [field.alias for field in get_flat_params(self.dependant) if _is_query(field.field_info)]
        taken, is_json = self._media_types(), self.body_field is not None

        async def check(request: Request) -> None:
            request.state.key = await allowed(request, request.app.state.service, self.right)
            if request.scope["query_string"] and self.path not in _LENIENT:
                check_query(request, known)
            if has_body(request):
                check_coding(request)
                media_types.check(request.headers, taken, is_json=is_json)

        return check

    def _media_types(self) -> Collection[str]:
        return media_types.of_route(self.openapi_extra, is_json=self.body_field is not None)


def _returns_page(endpoint: Callable[..., Any]) -> bool:
    """Whether an endpoint runs on a thread and returns a page of a list, which may have a thousand long items."""
    kind = signature(endpoint).return_annotation
    return isinstance(kind, type) and issubclass(kind, PageOut) and not iscoroutinefunction(endpoint)


def _written(endpoint: Callable[..., PageOut[Any]]) -> Callable[..., Response]:
    """The endpoint with its answer serialised on its own thread; FastAPI would do that on the event loop."""

    @wraps(endpoint)
    def written(*arguments: Any, **named: Any) -> Response:
        return Response(endpoint(*arguments, **named).model_dump_json(), media_type="application/json")

    return written


class _Bounded(Request):
    """A request whose JSON is bounded (`api.bodies.json_bodies`)."""

    async def json(self) -> Any:
        """The document, read once."""
        if not hasattr(self, "_json"):
            self._json = json_bodies.loads(await self.body())
        return self._json


def has_body(request: Request) -> bool:
    """Whether the headers declare a body that is not empty."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def check_coding(request: Request) -> None:
    """Raise `MediaTypeUnsupported` for a compressed body, except on routes that unpack it."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"", "identity"} and not request.scope["path"].endswith(_UNPACKS):
        raise MediaTypeUnsupported(
            f"Content-Encoding {coding[:100]!r} is not taken here: send the body as it is, without it."
        )


def check_query(request: Request, known: Sequence[str]) -> None:
    """Raise `Invalid` for a query parameter that the route does not have, or that comes twice."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    takes = f"known are {', '.join(known)}" if known else "this route takes none"
    if unknown := [name for name in given if name not in known]:
        raise Invalid(f"Unknown query parameter {', '.join(repr(name[:100]) for name in unknown[:5])}: {takes}.")
    if twice := [name for name, count in given.items() if count > 1]:
        raise Invalid(f"Query parameter {', '.join(twice)} was given more than once: say which one is meant.")


def _is_query(field: Any) -> bool:
    return getattr(field, "in_", None) == ParamTypes.query
