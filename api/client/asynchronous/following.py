"""The asynchronous twin of `api.client.following`: written by `make types`; change that module instead."""

import asyncio
import time
from collections.abc import AsyncGenerator
from http import HTTPStatus

import httpx
from httpx_sse import EventSource

from api.client.asynchronous.connection import AsyncConnection
from api.client.connection import Unavailable, Unreachable
from api.client.events import FINAL, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Event, headers, parsed, readable


async def events(
    connection: AsyncConnection, path: str, *, last_event_id: str | None, patience_seconds: float
) -> AsyncGenerator[Event, None]:
    """The events at a path up to the final status; a broken stream is opened again after the last event received.

    Yields nothing if the increment has ended and no event follows ``last_event_id``.
    Raises Unreachable or Unavailable if the service cannot be reached for longer than ``patience_seconds``, and
    ClientError for an answer that is not an event stream.
    """
    pause_seconds, lost_at, final = FIRST_PAUSE_SECONDS, None, False
    while not final:
        try:
            async with connection.stream("GET", path, headers=headers(last_event_id)) as response:
                if response.status_code == HTTPStatus.NO_CONTENT:  # the final status has been read before
                    return
                lost_at = None
                async for event in _events_of_one_stream(response, path):
                    pause_seconds = FIRST_PAUSE_SECONDS
                    if event.kind == "status":  # a retried increment has earlier final statuses: read on
                        final = event.data["status"] in FINAL
                    last_event_id = event.id or last_event_id
                    yield event
        except (Unreachable, Unavailable):
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > patience_seconds:
                raise
        if not final:
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)


async def _events_of_one_stream(response: httpx.Response, path: str) -> AsyncGenerator[Event, None]:
    """The events of one stream. Events without data are skipped (HTML, §9.2.6): the parser makes them of comments."""
    with readable(path):
        async for event in EventSource(response).aiter_sse():
            if event.data:
                yield parsed(event)
