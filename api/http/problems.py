"""Errors over HTTP: each domain error becomes one problem document (RFC 9457), mapped here and nowhere else."""

import errno
import json
import logging
import sqlite3
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from api.http.problem_kinds import kebab, status_of
from api.http.root_path import located, route_path
from api.schemas.inference import ErrorOut
from storage import errors
from storage.database.engine import is_unavailable
from storage.errors import AccreteError

RETRY_SECONDS = 5  # after which a database that is away may be back
_DISK_FULL = "53100"  # of PostgreSQL
MEDIA_TYPE = "application/problem+json"
SCHEMA = {"schema": {"$ref": "#/components/schemas/Problem"}}


log = logging.getLogger(__name__)


def problems(*kinds: type[AccreteError]) -> dict[int | str, dict[str, Any]]:
    """The errors a route can give, as FastAPI's ``responses`` describes them."""
    by_status: dict[int | str, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(status_of(kind).value, []).append(kind.__name__)
    return {
        status: {
            "description": ", ".join(names),
            "content": {MEDIA_TYPE: SCHEMA},
        }
        for status, names in by_status.items()
    }


def protocol_errors(*kinds: type[AccreteError]) -> dict[int | str, dict[str, Any]]:
    """`problems` for routes of the Open Inference Protocol, whose errors have another form."""
    answered = {int(status): names for status, names in problems(*kinds, errors.Invalid).items()}
    invalid = answered.pop(HTTPStatus.UNPROCESSABLE_ENTITY)
    return {
        status: {"model": ErrorOut, "description": names["description"]}
        for status, names in {**answered, int(HTTPStatus.BAD_REQUEST): invalid}.items()
    }


def is_protocol(path: str) -> bool:
    """Whether a path is the Open Inference Protocol's."""
    return path == "/v2" or path.startswith("/v2/")


class ProblemResponse(JSONResponse):
    """A problem document, escaped to ASCII: it may quote lone surrogates, which JSON allows but UTF-8 does not."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """The document's bytes."""
        return json.dumps(content, allow_nan=False).encode()


class Problem(BaseModel):
    """An error: ``detail`` says what is wrong and what to do; further members are for programs."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


def install(app: FastAPI) -> None:
    """Answer the errors of ``app`` with problem documents; `telemetry.Observer` answers others by `unexpected`."""
    app.add_exception_handler(AccreteError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(DataError, _unfit)
    app.add_exception_handler(SQLAlchemyError, _database)


def _problem(
    request: Request, status: int, kind: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
) -> JSONResponse:
    """The error as a problem document; on paths of the Open Inference Protocol in that protocol's form."""
    if is_protocol(route_path(request.scope)):
        status = HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else HTTPStatus(status)
        return JSONResponse(ErrorOut(error=detail).model_dump(), status_code=status, headers=headers)
    title = HTTPStatus(status).phrase
    body = {"type": located(request, f"/problems/{kind}"), "title": title, "status": status, "detail": detail}
    return ProblemResponse(body | extra, status_code=status, headers=headers)


async def answer(request: Request, error: AccreteError) -> JSONResponse:
    """The answer to a domain error, for middleware, where the exception handlers would not catch it."""
    return await _domain(request, error)


async def _domain(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AccreteError)
    status = status_of(type(error))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", request.method, request.url.path, error)
    extra = {name: value for name, value in error.extra.items() if value is not None}
    return _problem(request, status, kebab(type(error).__name__), error.detail, headers=_headers(error), **extra)


def _headers(error: AccreteError) -> dict[str, str] | None:
    """The headers that RFC 9110 wants with an error: WWW-Authenticate (§11.6.1) and Retry-After (§10.2.3)."""
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.RateLimited | errors.Overloaded | errors.VersionUnloadable):
        return {"Retry-After": str(error.extra["retry_after"])}
    return None


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [{"field": _field(fault["loc"]), "message": fault["msg"]} for fault in error.errors()]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "request-invalid", detail, errors=faults)


def _field(location: Sequence[int | str]) -> str:
    named = [str(part) for part in location if part not in {"body", "query", "path", "header"}]
    return ".".join(named) or str(location[0] if location else "request")


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, AccreteError | ClientDisconnect):  # FastAPI wraps them when it reads JSON
        return await (_domain if isinstance(error.__cause__, AccreteError) else _gone)(request, error.__cause__)
    if error.status_code == HTTPStatus.BAD_REQUEST and isinstance(error.__cause__, UnicodeError | RecursionError):
        why = "it is nested too deeply" if isinstance(error.__cause__, RecursionError) else "it is no UTF-8"
        return _problem(
            request, HTTPStatus.UNPROCESSABLE_ENTITY, "request-invalid", f"The body cannot be read as JSON: {why}."
        )
    kind = kebab(HTTPStatus(error.status_code).phrase.title().replace(" ", "").replace("-", ""))
    headers = dict(error.headers) if error.headers else None
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(await run_in_threadpool(_methods, request))}
    return _problem(request, error.status_code, kind, str(error.detail), headers=headers)


def _methods(request: Request) -> list[str]:
    """The methods of all routes at a request's path (RFC 9110 §10.2.1); Starlette names those of one route only."""
    path = route_path(request.scope)
    described = request.app.openapi()["paths"].items()
    taken = [methods for template, methods in described if compile_path(template)[0].match(path)]
    methods = {method.upper() for methods in taken for method in methods}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk caused an error, the database's disk included."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        if getattr(error, "sqlstate", None) == _DISK_FULL:
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


async def _gone(request: Request, _error: Exception) -> JSONResponse:
    log.info("%s %s: the client went away in the middle of its request", request.method, request.url.path)
    return _problem(
        request, HTTPStatus.BAD_REQUEST, "request-incomplete", "The request ended before its body was complete."
    )


async def _unfit(request: Request, error: Exception) -> JSONResponse:
    log.warning("%s %s: %s", request.method, request.url.path, error)
    detail = "A value in the request does not fit into the database, such as a text that holds a NUL character."
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "value-unfit", detail)


async def _database(request: Request, error: Exception) -> JSONResponse:
    """Answer 503 if the database cannot be reached or is locked for too long; any other error is unexpected."""
    assert isinstance(error, SQLAlchemyError)
    if _is_full(error) or not is_unavailable(error):
        return await unexpected(request, error)
    log.warning("%s %s: the database does not answer: %s", request.method, request.url.path, error)
    detail = (
        "The database does not answer at the moment, or is busy: try again in some seconds. An Idempotency-Key keeps "
        "what was done after all from being done twice."
    )
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return _problem(request, HTTPStatus.SERVICE_UNAVAILABLE, "database-unavailable", detail, headers=headers)


async def unexpected(request: Request, error: Exception) -> JSONResponse:
    """The answer to an unexpected error (500), or to a full disk (507)."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    if _is_full(error):
        detail = "The service has no disk space left, so nothing was stored: free some, then send the request again."
        return _problem(request, HTTPStatus.INSUFFICIENT_STORAGE, "storage-full", detail)
    return _problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        "The service failed to answer; the log says why. Try again later.",
    )
