"""Increments: ask for one, follow it, stop it, try it again."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError

from api import admission, views
from api.admission import Wish
from api.bodies import ARCHIVES
from api.problems import problems
from api.routes.models import Cursor, Limit
from api.schemas import IncrementIn, IncrementOut, PageOut, in_openapi
from api.service import Service, ServiceDep
from api.uploads import media_type, received
from storage import events, increments, models
from storage.domain import Event, Increment, KnownClasses, Promotion
from storage.errors import (
    ArchiveUnreadable,
    ArchiveUnsafe,
    BatchClosed,
    BatchInvalid,
    BatchNotFound,
    ClassesAlreadyKnown,
    IdempotencyMismatch,
    IncrementNotCancellable,
    IncrementNotFound,
    IncrementNotRetryable,
    Invalid,
    ModelNotFound,
    NothingToLearn,
    RecipeInvalid,
    TooLarge,
    UnknownStrategy,
)

router = APIRouter(prefix="/v1", tags=["increments"])

Choice = TypeVar("Choice", bound=StrEnum)
POLL_SECONDS = 0.25  # how soon a stream sees what the worker wrote
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **ARCHIVES,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {
                        "data": {"type": "string", "format": "binary"},
                        "strategy": {"type": "string"},
                        "recipe": {"type": "string", "description": "JSON object"},
                        "promote": {"enum": ["auto", "manual"]},
                        "known_classes": {"enum": ["refuse", "rehearse"]},
                    },
                }
            },
            "application/json": {"schema": in_openapi(IncrementIn)},
        },
    }
}


@router.post(
    "/models/{name}/increments",
    status_code=202,
    openapi_extra=BODY,
    responses=problems(
        ModelNotFound,
        BatchNotFound,
        ClassesAlreadyKnown,
        BatchClosed,
        UnknownStrategy,
        RecipeInvalid,
        NothingToLearn,
        BatchInvalid,
        ArchiveUnreadable,
        ArchiveUnsafe,
        IdempotencyMismatch,
        TooLarge,
    ),
)
async def request_increment(
    name: str,
    request: Request,
    response: Response,
    service: ServiceDep,
    strategy: Annotated[str | None, Query()] = None,
    recipe: Annotated[str | None, Query(description='JSON object, e.g. {"epochs": 10}')] = None,
    promote: Annotated[Promotion | None, Query()] = None,
    known_classes: Annotated[KnownClasses | None, Query()] = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> IncrementOut:
    """Queue one update of a model from labelled images: a zip or tar archive, or a batch collected before."""
    asked = {"strategy": strategy, "recipe": recipe, "promote": promote, "known_classes": known_classes}
    if media_type(request.headers) == "application/json":
        body = _parse(await request.body())
        wish = _wish(body.model_dump(exclude={"batch_id"}) | _given(asked), idempotency_key)
        increment, is_new = await run_in_threadpool(admission.from_batch, service, name, body.batch_id, wish)
    else:
        wish = _wish(_given(asked), idempotency_key)
        await run_in_threadpool(_check_wish, service, name, wish)  # before a gigabyte is taken in for nothing
        async with received(request, service.settings) as upload:
            wish = _wish(upload.fields | _given(asked), idempotency_key)
            increment, is_new = await run_in_threadpool(admission.from_archive, service, name, upload, wish)
    if is_new:
        await run_in_threadpool(service.wake_worker, increment.id)
    response.headers["Location"] = f"/v1/increments/{increment.id}"
    return await run_in_threadpool(_look, service, increment.id)


@router.get("/models/{name}/increments", responses=problems(ModelNotFound))
def list_increments(name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[IncrementOut]:
    """List a model's increments, latest first."""
    with service.database.read() as connection:
        page = increments.page(connection, models.get(connection, name), limit=limit, cursor=cursor)
        items = [views.increment(connection, item) for item in page.items]
        return PageOut(items=items, next_cursor=page.next_cursor)


@router.get("/increments/{increment_id}", responses=problems(IncrementNotFound))
def get_increment(increment_id: str, service: ServiceDep) -> IncrementOut:
    """Look at one increment: how far it is, or how it ended."""
    return _look(service, increment_id)


@router.post("/increments/{increment_id}/cancel", responses=problems(IncrementNotFound, IncrementNotCancellable))
def cancel_increment(increment_id: str, service: ServiceDep) -> IncrementOut:
    """Stop an increment: at once when it is queued, within seconds when it runs."""
    with service.database.write() as connection:
        increments.cancel(connection, increment_id)
    return _look(service, increment_id)


@router.post(
    "/increments/{increment_id}/retry",
    status_code=202,
    responses=problems(IncrementNotFound, IncrementNotRetryable, ClassesAlreadyKnown, NothingToLearn, BatchInvalid),
)
def retry_increment(increment_id: str, service: ServiceDep) -> IncrementOut:
    """Queue a failed or cancelled increment once more."""
    with service.database.write() as connection:
        found = increments.get(connection, increment_id)
        model = models.lock(connection, models.by_id(connection, found.model_id).name)
        increments.retry(connection, increment_id, model=model)
    service.wake_worker(increment_id)
    return _look(service, increment_id)


def existing_increment(increment_id: str, service: ServiceDep) -> str:
    """Answer 404 before a stream is opened."""
    with service.database.read() as connection:
        return increments.get(connection, increment_id).id


@router.get(
    "/increments/{increment_id}/events",
    response_class=EventSourceResponse,
    responses=problems(IncrementNotFound),
)
async def follow_increment(
    increment_id: Annotated[str, Depends(existing_increment)],
    service: ServiceDep,
    last_event_id: Annotated[int, Header(ge=0, description="Go on after this event.")] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Follow an increment: ``status``, ``stage`` and ``epoch`` events with ids, ``progress`` without, until its end."""
    seen = last_event_id
    progress: Mapping[str, Any] | None = None
    while not service.draining.is_set():
        increment, steps = await run_in_threadpool(_news, service, increment_id, seen)
        for step in steps:
            seen = step.sequence
            data = await run_in_threadpool(_data, service, step)
            yield ServerSentEvent(data=data, event=step.kind, id=str(step.sequence))
        if increment.progress is not None and increment.progress != progress:
            progress = increment.progress
            yield ServerSentEvent(data=dict(progress), event="progress")
        if increment.status.is_final:
            return
        await asyncio.sleep(POLL_SECONDS)


def _news(service: Service, increment_id: str, seen: int) -> tuple[Increment, tuple[Event, ...]]:
    with service.database.read() as connection:  # one view: a final status comes with its event
        return increments.get(connection, increment_id), events.after(connection, increment_id, seen)


def _data(service: Service, step: Event) -> dict[str, Any]:
    """A step's data; with a change of status comes the whole increment, its status as it was then."""
    if step.kind != "status":
        return dict(step.data)
    return _look(service, step.increment_id).model_dump(mode="json") | {"status": step.data["status"]}


def _look(service: Service, increment_id: str) -> IncrementOut:
    with service.database.read() as connection:
        return views.increment(connection, increments.get(connection, increment_id))


def _check_wish(service: Service, name: str, wish: Wish) -> None:
    with service.database.read() as connection:
        wish.recipe_for(models.get(connection, name))


def _parse(body: bytes) -> IncrementIn:
    try:
        return IncrementIn.model_validate_json(body)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise Invalid(f"The JSON body is not as it should be: {faults}") from error


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def _wish(fields: Mapping[str, Any], idempotency_key: str | None) -> Wish:
    """What query, form fields or JSON ask for; raises `Invalid` that names the field."""
    unknown = sorted(set(fields) - {"strategy", "recipe", "promote", "known_classes"})
    if unknown:
        raise Invalid(f"Unknown field {', '.join(unknown)}: known are strategy, recipe, promote and known_classes.")
    recipe = fields.get("recipe")
    if isinstance(recipe, str):
        try:
            recipe = json.loads(recipe)
        except (ValueError, RecursionError) as error:
            raise RecipeInvalid(f"recipe is no JSON: {error}") from error
    if recipe is not None and not isinstance(recipe, dict):
        raise RecipeInvalid(f'recipe is a JSON object such as {{"epochs": 10}}, got {recipe!r}')
    return Wish(
        strategy=fields.get("strategy"),
        recipe=recipe,
        promote=_one_of(Promotion, "promote", fields.get("promote") or Promotion.AUTO),
        known_classes=_one_of(KnownClasses, "known_classes", fields.get("known_classes") or KnownClasses.REFUSE),
        idempotency_key=idempotency_key,
    )


def _one_of(kind: type[Choice], name: str, value: str) -> Choice:
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid(f"{name} is one of {', '.join(map(str, kind))}, got {value!r}") from error
