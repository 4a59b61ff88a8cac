"""A short way to the routes that predict, for requests that say nothing but what to predict.

FastAPI resolves parameters and dependencies anew for each request, which is four tenths of what the event loop does for
a prediction. Where a request has neither a query nor a deadline, every parameter is at its default, and there
is nothing to resolve but the model's name: such a request is answered by the same function, after the same check of its
key. All others, and the description of both, are FastAPI's (docs/decisions/0015).
"""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from api.bodies import media_types
from api.http.access import allowed
from api.http.guarded_route import Guarded, check_coding
from api.schemas.predictions import DEADLINE_HEADER
from api.service import Service

_DEADLINE = DEADLINE_HEADER.lower().encode()


class Shortcut(Route):
    """Stands before the route of the same path that FastAPI knows, and lets pass by what has parameters."""

    def __init__(self, router: APIRouter, predict: Callable[..., Awaitable[BaseModel | Response]]) -> None:
        """Answer as the route of ``predict`` by what it makes of ``name``, ``request`` and ``service``."""
        guarded = next(one for one in router.routes if isinstance(one, Guarded) and one.endpoint is predict)
        taken = media_types.of_route(guarded.openapi_extra, is_json=False)

        async def answer(request: Request) -> Response:
            service: Service = request.app.state.service
            await allowed(request, service, guarded.right)
            if "content-encoding" in request.headers:
                check_coding(request)
            media_types.check(request.headers, taken)
            said = await predict(name=request.path_params["name"], request=request, service=service)
            if isinstance(said, Response):
                return said
            return Response(said.__pydantic_serializer__.to_json(said), media_type="application/json")

        super().__init__(guarded.path, answer, methods=["POST"], include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take what has no parameter but the path's."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return Match.NONE, {}
        match, child = super().matches(scope)
        if match is not Match.FULL or any(name == _DEADLINE for name, _ in scope["headers"]):
            return Match.NONE, {}
        return match, {**child, "route": self}  # which is what `api.http.access` and `api.http.telemetry` go by
