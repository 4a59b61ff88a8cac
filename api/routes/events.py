"""The event stream of an increment: server-sent events, resumable, until the increment ends."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.service import ServiceDep
from storage.domain import Scope
from storage.errors import IncrementNotFound
from storage.work import events, increments

router = APIRouter(prefix="/v1", tags=["increments"], route_class=Guarded)
LastEventId = Annotated[int, Header(ge=0, description="Go on after this event.")]


class NothingMore(Exception):
    """The client has received every event of an increment that has ended."""


def install(app: FastAPI) -> None:
    """Answer `NothingMore` with 204, at which browsers stop reconnecting (HTML §9.2.3)."""

    async def nothing_more(_request: Request, _error: Exception) -> Response:
        return Response(status_code=204)

    app.add_exception_handler(NothingMore, nothing_more)


def followed_increment(increment_id: str, service: ServiceDep, last_event_id: LastEventId = 0) -> str:
    """Id of the increment; raises `IncrementNotFound` and `NothingMore` before a stream is opened."""
    with service.database.read() as connection:
        increment = increments.get(connection, increment_id)
        if increment.status.is_final and not events.after(connection, increment_id, last_event_id):
            raise NothingMore
    return increment.id


@router.get(
    "/increments/{increment_id}/events",
    dependencies=[needs(Scope.PREDICT)],
    response_class=EventSourceResponse,
    responses={
        **problems(IncrementNotFound),
        204: {"description": "The reader has all of it: nothing more will come."},
    },
)
async def follow_increment(
    increment_id: Annotated[str, Depends(followed_increment)], service: ServiceDep, last_event_id: LastEventId = 0
) -> AsyncIterator[ServerSentEvent]:
    """Follow an increment until its end: ``status``, ``stage`` and ``epoch`` events have ids, ``progress`` events none.

    A ``status`` event carries the increment as it is now, but with the status that it had at that event. The last
    event is a ``status`` event.
    """
    progress: Mapping[str, Any] | None = None
    async for news in service.feed.follow(increment_id, after=last_event_id):
        for step in news.steps:
            data = dict(step.data)
            if step.kind == "status" and news.shown is not None:
                data = {**news.shown, "status": step.data["status"]}
            yield ServerSentEvent(data=data, event=step.kind, id=str(step.sequence))
        increment = news.increment
        if increment.progress is not None and increment.progress != progress and not increment.status.is_final:
            progress = increment.progress
            yield ServerSentEvent(data=dict(progress), event="progress")
