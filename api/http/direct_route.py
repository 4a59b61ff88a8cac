"""Routes that FastAPI describes in OpenAPI, but that are called without its dependency injection.

FastAPI solves dependencies again for each request: four tenths of the event loop's work for a prediction (decision
0015). A direct route gets the request, the service, and path, query and header parameters, validated as by FastAPI.
"""

from inspect import signature
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, QueryParams

from api.http.guarded_route import Guarded, Handler

_GIVEN = frozenset({"request", "service"})


class Direct(Guarded):
    """A guarded route that calls its endpoint, a coroutine function, directly, without solving dependencies.

    Raises `TypeError` if the endpoint has another argument than ``request``, ``service`` and HTTP parameters.
    """

    def get_route_handler(self) -> Handler:
        """Check the key, the query and the media type, then the parameters, and call the endpoint."""
        path, query, header = self.dependant.path_params, self.dependant.query_params, self.dependant.header_params
        named = {field.name for field in (*path, *query, *header)}
        if other := set(signature(self.endpoint).parameters) - named - _GIVEN:
            raise TypeError(f"a direct route gives parameters, request and service, and nothing else: {other}")
        check = self.checks()
        headers_known = [field.alias.lower().encode() for field in header]
        unasked = {**_checked(query, QueryParams("")), **_checked(header, Headers())}  # the defaults

        async def direct(request: Request) -> Response:
            await check(request)
            given = dict(unasked)
            if request.scope["query_string"]:
                given |= _checked(query, request.query_params)
            if any(name in headers_known for name, _ in request.scope["headers"]):
                given |= _checked(header, request.headers)
            given |= _checked(path, request.path_params)
            said = await self.endpoint(request=request, service=request.app.state.service, **given)
            if isinstance(said, Response):
                return said
            return Response(said.__pydantic_serializer__.to_json(said), media_type="application/json")

        return direct


def _checked(fields: Any, received: Any) -> dict[str, Any]:
    """Validated parameters by the names of the endpoint's arguments; raises `RequestValidationError`, as FastAPI."""
    values, errors = request_params_to_args(fields, received)
    if errors:
        raise RequestValidationError(errors)
    return values
