"""The events of an increment, followed to its end; a broken stream is opened again."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from api.client.connection import ClientError, Connection, Unavailable, Unreachable

UNNUMBERED = "progress"  # the service does not store these events; a parser gives them the id of the event before
FINAL = frozenset({"succeeded", "failed", "cancelled"})
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0  # before an event stream is opened again


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an increment.

    The kinds ``status``, ``stage`` and ``epoch`` are stored and have an id; ``progress`` is live only and has none.
    """

    kind: str
    data: dict[str, Any]
    id: str | None


def events(connection: Connection, path: str, *, last_event_id: str | None, patience_seconds: float) -> Iterator[Event]:
    """The events at a path up to the final status; a broken stream is opened again after the last event received.

    Yields nothing if the increment has ended and no event follows ``last_event_id``.
    Raises Unreachable or Unavailable if the service cannot be reached for longer than ``patience_seconds``, and
    ClientError for an answer that is not an event stream.
    """
    pause_seconds, lost_at, final = _FIRST_PAUSE_SECONDS, None, False
    while not final:
        try:
            with connection.stream("GET", path, headers=_headers(last_event_id)) as response:
                if response.status_code == HTTPStatus.NO_CONTENT:  # the final status has been read before
                    return
                lost_at = None
                for event in _events_of_one_stream(response, path):
                    pause_seconds = _FIRST_PAUSE_SECONDS
                    if event.kind == "status":  # a retried increment has earlier final statuses: read on
                        final = event.data["status"] in FINAL
                    last_event_id = event.id or last_event_id
                    yield event
        except (Unreachable, Unavailable):
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > patience_seconds:
                raise
        if not final:
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


def _headers(last_event_id: str | None) -> dict[str, str]:
    return {"Accept": "text/event-stream"} | ({} if last_event_id is None else {"Last-Event-ID": last_event_id})


def _events_of_one_stream(response: httpx.Response, path: str) -> Iterator[Event]:
    """The events of one stream. Events without data are skipped (HTML, §9.2.6): the parser makes them of comments."""
    try:
        for event in EventSource(response).iter_sse():
            if event.data:
                yield Event(event.event, json.loads(event.data), None if event.event == UNNUMBERED else event.id)
    except (SSEError, json.JSONDecodeError) as error:  # perhaps a page of a proxy
        raise ClientError(f"{path}: no event stream came back: {error}") from error
