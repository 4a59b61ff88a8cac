"""Entries of the audit log: begun before a change is made, ended with the status that went out."""

import logging

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.types import Scope

from api.service import Service
from storage import safetext
from storage.domain import Key
from storage.requests import audit

_ENTRY = "audit_entry"  # in the state of a request: the number of what was written when it began

log = logging.getLogger(__name__)


def begin(service: Service, request: Request) -> None:
    """Write down who asks for which change; `end` finds it by the request's state."""
    key: Key | None = request.state.key
    route = f"{request.method} {request.scope['route'].path}"
    client = request.client.host if request.client is not None else "unknown"
    path = safetext.discreet(request.scope["path"])
    with service.database.write() as connection:
        number = audit.begin(connection, key=key, client=client, action=route, path=path)
    setattr(request.state, _ENTRY, number)


async def end(scope: Scope, status: int | None) -> None:
    """Note how a request ended that is on record; None: no answer began, and its entry stays without an end."""
    number = scope["state"].get(_ENTRY)
    if number is not None and status is not None:
        await run_in_threadpool(_end, scope["app"].state.service, number, status)


def _end(service: Service, number: int, status: int) -> None:
    """The request is answered by now: what cannot be noted stays without an end."""
    try:
        with service.database.write() as connection:
            audit.end(connection, number, status=status)
    except SQLAlchemyError as error:
        log.warning("record %d of the audit stays without an end: %s", number, error)
