"""Entries of the audit log: written before a change is made, completed with the HTTP status of the answer."""

import logging

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.types import Scope

from api.service import Service
from storage import safetext
from storage.domain import Key
from storage.requests import audit

_ENTRY = "audit_entry"  # name in a request's state: the number of its entry

log = logging.getLogger(__name__)


async def begin(service: Service, request: Request) -> None:
    """Write an entry: who asks for which change. Its number goes into the request's state, for `end`.

    To be called on the request's own task, so that its route can `audit.record_change`.
    """
    number = await run_in_threadpool(_begin, service, request)
    setattr(request.state, _ENTRY, number)
    audit.entry.set(number)


def _begin(service: Service, request: Request) -> int:
    key: Key | None = request.state.key
    route = f"{request.method} {request.scope['route'].path}"
    client = request.client.host if request.client is not None else "unknown"
    path = safetext.discreet(request.scope["path"])
    with service.database.write() as connection:
        return audit.begin(connection, key=key, client=client, action=route, path=path)


async def end(scope: Scope, status: int | None) -> None:
    """Add the HTTP status to a request's entry, if it has one; None: no answer was begun, and nothing is added."""
    number = scope["state"].get(_ENTRY)
    if number is not None and status is not None:
        await run_in_threadpool(_end, scope["app"].state.service, number, status)


def _end(service: Service, number: int, status: int) -> None:
    """Add the status. The request is answered by now, so an error of the database is only logged."""
    try:
        with service.database.write() as connection:
            audit.end(connection, number, status=status)
    except SQLAlchemyError as error:
        log.warning("record %d of the audit stays without an end: %s", number, error)
