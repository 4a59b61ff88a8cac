"""The event stream of an increment: server-sent, resumable, ended by its end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api import views
from api.door import Guarded
from api.problems import problems
from api.service import Service, ServiceDep
from storage import events, increments
from storage.domain import Event, Increment
from storage.errors import IncrementNotFound

router = APIRouter(prefix="/v1", tags=["increments"], route_class=Guarded)

POLL_SECONDS = 0.25  # how soon a stream sees what the worker wrote


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
        if increment.status.is_final:
            return  # the final status is the last event, whatever progress was written shortly before it
        if increment.progress is not None and increment.progress != progress:
            progress = increment.progress
            yield ServerSentEvent(data=dict(progress), event="progress")
        await asyncio.sleep(POLL_SECONDS)


def _news(service: Service, increment_id: str, seen: int) -> tuple[Increment, tuple[Event, ...]]:
    with service.database.read() as connection:  # one view: a final status comes with its event
        return increments.get(connection, increment_id), events.after(connection, increment_id, seen)


def _data(service: Service, step: Event) -> dict[str, Any]:
    """A step's data; with a change of status comes the whole increment, its status as it was then."""
    if step.kind != "status":
        return dict(step.data)
    with service.database.read() as connection:
        shown = views.increment(connection, increments.get(connection, step.increment_id))
    return shown.model_dump(mode="json") | {"status": step.data["status"]}
