"""Who may do what: the key a request brings, the scope its route asks for, and the record of every change."""

import logging
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from api.http.problem_kinds import status_of
from api.service import Service, ServiceDep
from storage import safetext
from storage.domain import Key, Scope
from storage.errors import (
    AccreteError,
    BatchNotFound,
    Forbidden,
    ImageNotFound,
    IncrementNotFound,
    PredictionNotFound,
    RateLimited,
    Unauthenticated,
)
from storage.history import models
from storage.material import batches, images
from storage.requests import audit, keys, predictions
from storage.settings import is_this_machine
from storage.work import increments

log = logging.getLogger(__name__)

ADMIN, TRAIN, PREDICT = Scope.ADMIN, Scope.TRAIN, Scope.PREDICT

# What a key needs for each route; `check_routes` lets none of theirs be left out. Looking is for whoever predicts,
# but for the images themselves: they are what teams upload, not what their customers should see.
SCOPES: Mapping[str, Scope] = {
    "GET /v1/strategies": PREDICT,
    "GET /v1/models": PREDICT,
    "POST /v1/models": TRAIN,
    "GET /v1/models/{name}": PREDICT,
    "PATCH /v1/models/{name}": ADMIN,
    "DELETE /v1/models/{name}": ADMIN,
    "POST /v1/models/{name}/batches": TRAIN,
    "GET /v1/batches/{batch_id}": TRAIN,
    "GET /v1/batches/{batch_id}/rejects": TRAIN,
    "DELETE /v1/batches/{batch_id}": ADMIN,
    "POST /v1/batches/{batch_id}/images": TRAIN,
    "GET /v1/images/{image_id}": TRAIN,
    "DELETE /v1/images/{image_id}": ADMIN,
    "DELETE /v1/models/{name}/classes/{label}/images": ADMIN,
    "GET /v1/models/{name}/images/{image_id}/prediction": PREDICT,
    "POST /v1/models/{name}/increments": TRAIN,
    "GET /v1/models/{name}/increments": PREDICT,
    "GET /v1/increments/{increment_id}": PREDICT,
    "GET /v1/increments/{increment_id}/events": PREDICT,
    "POST /v1/increments/{increment_id}/cancel": TRAIN,
    "POST /v1/increments/{increment_id}/retry": TRAIN,
    "GET /v1/models/{name}/versions": PREDICT,
    "GET /v1/models/{name}/versions/{number}": PREDICT,
    "DELETE /v1/models/{name}/versions/{number}": ADMIN,
    "GET /v1/models/{name}/versions/{number}/files/{file}": TRAIN,
    "GET /v1/models/{name}/versions/{number}/metrics": PREDICT,
    "GET /v1/models/{name}/metrics": PREDICT,
    "GET /v1/models/{name}/metrics.png": PREDICT,
    "GET /v1/models/{name}/current": PREDICT,
    "PUT /v1/models/{name}/current": TRAIN,
    "POST /v1/models/{name}/predictions": PREDICT,
    "GET /v1/models/{name}/predictions": PREDICT,
    "GET /v1/predictions/{prediction_id}": PREDICT,
    "GET /v1/audit": ADMIN,
    "GET /metrics": PREDICT,
    "GET /v2": PREDICT,
    "POST /v2/repository/index": PREDICT,
    "GET /v2/models/{name}": PREDICT,
    "GET /v2/models/{name}/ready": PREDICT,
    "POST /v2/models/{name}/infer": PREDICT,
    "GET /v2/models/{name}/versions/{number}": PREDICT,
    "GET /v2/models/{name}/versions/{number}/ready": PREDICT,
    "POST /v2/models/{name}/versions/{number}/infer": PREDICT,
}
_OF_NO_MODEL = {"GET /v1/strategies", "GET /v2"}  # what says nothing about any model, for keys of one model too
_PROXIED = ("forwarded", "x-forwarded-for", "via")

bearer = HTTPBearer(
    auto_error=False,
    description="An API key, of `accrete keys create`. Not needed where the service listens on this machine alone.",
)


async def allowed(request: Request, service: Service, credentials: HTTPAuthorizationCredentials | None) -> Key | None:
    """Let a request pass that may do what it asks for; its key, None where it needs none.

    Raises `Unauthenticated`, `Forbidden`, `RateLimited`, and for what a key of another model asks about the same as
    if it were not there.
    """
    key = await _key(request, service, credentials)
    if key is not None:
        if (seconds := service.keyring.wait(key)) > 0:
            raise RateLimited(
                f"This key may ask {key.rate:g} times a second: try again in {seconds:.2f} s.",
                retry_after=math.ceil(seconds),
            )
        _check_scope(key, _route(request))
        if key.model_id is not None and not _is_own_model(service, key, request.path_params):
            await run_in_threadpool(_check_model, service, key, request.path_params)
    return key


async def key_of(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Key | None:
    """The key of a request that its route has let pass, as routes depend on it and OpenAPI describes it."""
    key: Key | None = request.state.key
    return key


async def on_record(
    request: Request, service: ServiceDep, key: Annotated[Key | None, Depends(key_of)]
) -> AsyncIterator[None]:
    """Keep record of what a request changes, and of how that ended."""
    if request.method in {"GET", "HEAD"}:
        yield
        return
    route = _route(request)
    number = await run_in_threadpool(_begin, service, request, key, route)
    status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
    try:
        yield
        status = int(request.scope["route"].status_code or HTTPStatus.OK)
    except AccreteError as error:
        status = int(status_of(type(error)))
        raise
    except RequestValidationError:
        status = int(HTTPStatus.UNPROCESSABLE_ENTITY)
        raise
    except HTTPException as error:
        status = error.status_code
        raise
    finally:
        await run_in_threadpool(_end, service, number, status)


def check_routes(routers: Iterable[APIRouter]) -> None:
    """Fail where a route has no scope, or a scope has no route."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    found = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    if found != SCOPES.keys():
        raise AssertionError(f"routes and api.http.access.SCOPES differ in {sorted(found ^ SCOPES.keys())}")


def _route(request: Request) -> str:
    """Method and path of the route, as `SCOPES` names it."""
    return f"{request.method} {request.scope['route'].path}"


async def _key(request: Request, service: Service, sent: HTTPAuthorizationCredentials | None) -> Key | None:
    """The key in force that the request brings; None where it needs none and brings none."""
    if "authorization" not in request.headers and not service.settings.keys_needed:
        _check_neighbour(request, service)
        return None
    if sent is None:
        raise Unauthenticated(
            "This service asks for an API key: send it as `Authorization: Bearer KEY`. "
            "`accrete keys create NAME --scope predict` makes one, where the service runs."
        )
    digest = keys.digest_of(sent.credentials)
    key = service.keyring.known(digest) or await run_in_threadpool(service.keyring.look_up, digest)
    if key is None:
        raise Unauthenticated("The API key is not known, or was revoked: ask an administrator for another one.")
    return key


def _check_neighbour(request: Request, service: Service) -> None:
    """Refuse what did not come from this machine after all: through a proxy, or by a browser for some web page."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if host != service.settings.host and not is_this_machine(host):
        raise Forbidden(
            f"Without keys the service answers to 127.0.0.1 and localhost only, not to {host[:100]!r}: use one of "
            "those, or set ACCRETE_KEYS=required."
        )
    if any(name in request.headers for name in _PROXIED):
        raise Forbidden("Without keys the service answers to nobody behind a proxy: set ACCRETE_KEYS=required.")
    origin = request.headers.get("origin")
    named = service.settings.origins  # * names none of them: who has all pages in mind cannot mean administrators
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host") and origin not in named:
        raise Forbidden(
            "Without keys the service takes no orders from pages of other sites: name this one in "
            "ACCRETE_CORS_ORIGINS, or set ACCRETE_KEYS=required."
        )


def _check_scope(key: Key, route: str) -> None:
    needed = SCOPES[route]
    if not key.allows(needed):
        held = ", ".join(sorted(key.scopes))
        raise Forbidden(
            f"This needs a key of scope {needed.value!r}; the key {key.name!r} has {held}. {_new_key(needed)}"
        )
    if key.model_id is not None and "{" not in route and route not in _OF_NO_MODEL:
        raise Forbidden(
            f"The key {key.name!r} is for one model only: ask for what is under /v1/models/NAME, or use one for all. "
            + _new_key(needed)
        )


def _new_key(scope: Scope) -> str:
    return f"An administrator makes one where the service runs: accrete keys create NAME --scope {scope.value}"


def _is_own_model(service: Service, key: Key, parameters: Mapping[str, Any]) -> bool:
    """Whether all that a path names is the key's own model, as far as can be told without the database."""
    known = service.engine.registry.known(parameters["name"]) if parameters.keys() == {"name"} else None
    return known is not None and known.id == key.model_id


def _check_model(service: Service, key: Key, parameters: Mapping[str, Any]) -> None:
    """Behave to the key of one model as if there were no other."""
    with service.database.read() as connection:
        if "name" in parameters and (own := models.by_id(connection, str(key.model_id)).name) != parameters["name"]:
            raise Forbidden(
                f"The key {key.name!r} is for another model, {own!r}: use a key for all models, or for this one. "
                + _new_key(max(key.scopes, key=list(Scope).index))
            )
        owner = _owner(service, connection, parameters)
    if owner is not None and owner[0] != key.model_id:
        raise owner[1]


def _owner(service: Service, connection: Connection, parameters: Mapping[str, Any]) -> tuple[str, AccreteError] | None:
    """Id of the model that what an id in the path names belongs to, and what to say to others."""
    match parameters:
        case {"batch_id": name}:
            return batches.get(connection, name).model_id, BatchNotFound(f"There is no batch {name!r}.")
        case {"increment_id": name}:
            return increments.get(connection, name).model_id, IncrementNotFound(f"There is no increment {name!r}.")
        case {"image_id": name}:
            return images.model_of(connection, name), ImageNotFound(f"There is no image {name!r}.")
        case {"prediction_id": name}:
            missing = PredictionNotFound(f"There is no prediction {name!r} on record.")
            pending = service.recorder.pending(name)
            return (pending or predictions.get(connection, name)).model_id, missing
    return None


def _begin(service: Service, request: Request, key: Key | None, route: str) -> int:
    client = request.client.host if request.client is not None else "unknown"
    with service.database.write() as connection:
        return audit.begin(
            connection, key=key, client=client, action=route, path=safetext.discreet(request.scope["path"])
        )


def _end(service: Service, number: int, status: int) -> None:
    """Note how a request ended, which is answered by now: what cannot be noted stays without an end."""
    try:
        with service.database.write() as connection:
            audit.end(connection, number, status=status)
    except SQLAlchemyError as error:
        log.warning("record %d of the audit stays without an end: %s", number, error)
