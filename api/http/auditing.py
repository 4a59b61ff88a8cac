"""Entries of the audit log: written before a change is made, completed with the HTTP status of the answer."""

import logging
from contextvars import ContextVar
from typing import Any

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.types import Scope

from api.service import Service
from storage import safetext
from storage.domain import Key
from storage.requests import audit

_FAILED = 400  # the first status of an answer that says that nothing was changed
_ENTRY = "audit_entry"  # name in a request's state: the number of its entry

_CHANGE = "audit_change"  # name in a request's state: what its route has told
_told: ContextVar[dict[str, Any] | None] = ContextVar("told", default=None)  # the same, for the route

log = logging.getLogger(__name__)


def tell(**facts: Any) -> None:
    """Say what the request under way changes, for its entry: values that JSON has, and nothing that was erased.

    ``changed`` holds values before and after, by field; ``made`` and ``deleted`` say what. The last one of each counts.
    """
    if (told := _told.get()) is not None:
        told.update(facts)


def listen(request: Request) -> None:
    """Let the route of a request `tell`; to be called on the request's own task."""
    told: dict[str, Any] = {}
    setattr(request.state, _CHANGE, told)
    _told.set(told)


def begin(service: Service, request: Request) -> None:
    """Write an entry: who asks for which change. Its number goes into the request's state, for `end`."""
    key: Key | None = request.state.key
    route = f"{request.method} {request.scope['route'].path}"
    client = request.client.host if request.client is not None else "unknown"
    path = safetext.discreet(request.scope["path"])
    with service.database.write() as connection:
        number = audit.begin(connection, key=key, client=client, action=route, path=path)
    setattr(request.state, _ENTRY, number)


async def end(scope: Scope, status: int | None) -> None:
    """Add the HTTP status to a request's entry, if it has one, and what was changed if the request succeeded.

    None: no answer was begun, and nothing is added.
    """
    number = scope["state"].get(_ENTRY)
    if number is not None and status is not None:
        change = scope["state"][_CHANGE] if status < _FAILED else {}
        await run_in_threadpool(_end, scope["app"].state.service, number, status, change or None)


def _end(service: Service, number: int, status: int, change: dict[str, Any] | None) -> None:
    """Add the status and the change. The request is answered by now, so an error of the database is only logged."""
    try:
        with service.database.write() as connection:
            audit.end(connection, number, status=status, change=change)
    except SQLAlchemyError as error:
        log.warning("record %d of the audit stays without an end: %s", number, error)
