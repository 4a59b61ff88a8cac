"""The OpenAPI document at /openapi.json: corrections of the one that FastAPI generates."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import MEDIA_TYPE, SCHEMA, Problem, is_protocol
from api.openapi import descriptions, operations
from api.schemas.inference import InferIn

EVENT_STREAM = "text/event-stream"


def install(app: FastAPI, *, keys_needed: bool) -> None:
    """Make the document of ``app`` describe errors as problem documents, and event streams as OpenAPI 3.1 does.

    If no keys are needed, each operation lists "no key" as an alternative to a key (OpenAPI 3.1 §4.8.30).
    """
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        schemas |= _with_parts(InferIn)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for path, methods in document["paths"].items():
            for operation in methods.values() if is_protocol(path) else ():
                operation["responses"].pop("422", None)  # the protocol's errors are 400, declared by its routes
        for operation in _operations(document):
            if "security" in operation and not keys_needed and {} not in operation["security"]:
                operation["security"].insert(0, {})
        for status, response in _responses(document):
            content = response.get("content", {})
            if status == "422" and "application/json" in content:  # FastAPI's own error format, which is never sent
                response["content"] = {MEDIA_TYPE: SCHEMA}
            if EVENT_STREAM in content:  # FastAPI's itemSchema is a keyword of OpenAPI 3.2
                content[EVENT_STREAM] = {"schema": {"type": "string"}}
        _explain(document)
        return document

    app.openapi = cache(openapi)  # type: ignore[method-assign]
    _make_beside_the_event_loop(app)


def _make_beside_the_event_loop(app: FastAPI) -> None:
    """Generate the document on another thread: it takes half a second, once, and must not block the event loop."""
    for route in app.router.routes:
        if isinstance(route, Route) and route.path == app.openapi_url:
            route.app = _After(app, route.app)


class _After:
    """An ASGI application that generates the document on another thread before it calls ``app``."""

    def __init__(self, described: FastAPI, app: ASGIApp) -> None:
        self._described, self._app = described, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await run_in_threadpool(self._described.openapi)
        await self._app(scope, receive, send)


def _explain(document: dict[str, Any]) -> None:
    """Add descriptions to every property, parameter and operation, in place."""
    for name, schema in document["components"]["schemas"].items():
        descriptions.describe(name, schema.get("properties", {}))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            operations.complete(method, path, operation)
            for parameter in operation.get("parameters", ()):
                said = parameter["schema"] | {key: value for key, value in parameter.items() if key == "description"}
                descriptions.describe("parameter", {parameter["name"]: said})
                parameter["description"] = said.pop("description", "")
                parameter["schema"] = said
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                form = "form" if kind == "multipart/form-data" else body["schema"].get("title", "")
                descriptions.describe(form, body["schema"].get("properties", {}))


def _with_parts(model: type[BaseModel]) -> dict[str, Any]:
    """Schemas, by name, of a body that a route reads by itself and of the models within it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), model.__name__: schema}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _responses(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for operation in _operations(document):
        yield from operation["responses"].items()
