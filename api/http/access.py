"""Authorisation: the key of a request, whether the key allows the route, and the audit entry of every change."""

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials
from sqlalchemy import Connection

from api.http import auditing
from api.http.rights import Right, bearer
from api.service import Service, ServiceDep
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
from storage.requests import keys, predictions
from storage.settings import is_this_machine
from storage.work import increments

_PROXIED = ("forwarded", "x-forwarded-for", "via")


async def allowed(request: Request, service: Service, right: Right) -> Key | None:
    """The key of a request, once it is known to allow the route; None if no key is needed and none was sent.

    Raises `Unauthenticated`, `Forbidden` and `RateLimited`. If the path holds an id that belongs to another model than
    the key's, raises the error for an id that does not exist.
    """
    key = await _key(request, service, await bearer(request))
    if key is not None:
        if (seconds := service.keyring.wait(key)) > 0:
            raise RateLimited(
                f"This key may ask {key.rate:g} times a second: try again in {seconds:.2f} s.",
                retry_after=math.ceil(seconds),
            )
        _check_scope(key, right, names_model=bool(request.path_params))
        if key.model_id is not None and not _is_own_model(service, key, request.path_params):
            await run_in_threadpool(_check_model, service, key, request.path_params)
    return key


async def on_record(request: Request, service: ServiceDep) -> None:
    """Write an entry of the audit log before a request changes anything; `api.http.telemetry` adds the outcome."""
    await auditing.begin(service, request)


async def _key(request: Request, service: Service, sent: HTTPAuthorizationCredentials | None) -> Key | None:
    """The valid key of a request; None if no key is needed and none was sent.

    Raises `Unauthenticated`, and `Forbidden` for a request without a key that does not come from this machine.
    """
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
    """Raise `Forbidden` for a request that comes from elsewhere: through a proxy, or from a page of another site."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if host != service.settings.host and not is_this_machine(host):
        raise Forbidden(
            f"Without keys the service answers to 127.0.0.1 and localhost only, not to {host[:100]!r}: use one of "
            "those, or set ACCRETE_KEYS=required."
        )
    if any(name in request.headers for name in _PROXIED):
        raise Forbidden("Without keys the service answers to nobody behind a proxy: set ACCRETE_KEYS=required.")
    origin = request.headers.get("origin")
    named = service.settings.origins  # a `*` matches no page here: not every page may act as administrator
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host") and origin not in named:
        raise Forbidden(
            "Without keys the service refuses changes by pages of other sites: name this one in "
            "ACCRETE_CORS_ORIGINS, or set ACCRETE_KEYS=required."
        )


def _check_scope(key: Key, right: Right, *, names_model: bool) -> None:
    if not key.allows(right.scope):
        held = ", ".join(sorted(key.scopes))
        raise Forbidden(
            f"This needs a key of scope {right.scope.value!r}; the key {key.name!r} has {held}. "
            + _new_key(right.scope)
        )
    if key.model_id is not None and right.needs_model_in_path and not names_model:
        raise Forbidden(
            f"The key {key.name!r} is for one model only: ask for what is under /v1/models/NAME, or use one for all. "
            + _new_key(right.scope)
        )


def _new_key(scope: Scope) -> str:
    return f"An administrator makes one where the service runs: accrete keys create NAME --scope {scope.value}"


def _is_own_model(service: Service, key: Key, parameters: Mapping[str, Any]) -> bool:
    """Whether a path names the key's own model and nothing else; False if only the database could tell."""
    known = service.engine.registry.known(parameters["name"]) if parameters.keys() == {"name"} else None
    return known is not None and known.id == key.model_id


def _check_model(service: Service, key: Key, parameters: Mapping[str, Any]) -> None:
    """Refuse a path that names another model than the key's (`Forbidden`), or an id of another model (not found)."""
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
    """The model that the id in a path belongs to: the model's id, and the error for keys of other models.

    None if the path holds no such id.
    """
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
