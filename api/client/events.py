"""An event of an increment, and when a stream of them is opened again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from httpx_sse import ServerSentEvent, SSEError

from api.client.connection import ClientError

UNNUMBERED = "progress"  # the service does not store these events; a parser gives them the id of the event before
FINAL = frozenset({"succeeded", "failed", "cancelled"})
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0  # before an event stream is opened again


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an increment.

    The kinds ``status``, ``stage`` and ``epoch`` are stored and have an id; ``progress`` is live only and has none.
    """

    kind: str
    data: dict[str, Any]
    id: str | None


def headers(last_event_id: str | None) -> dict[str, str]:
    """The headers of the request for what comes after an event."""
    return {"Accept": "text/event-stream"} | ({} if last_event_id is None else {"Last-Event-ID": last_event_id})


def parsed(event: ServerSentEvent) -> Event:
    """An event with its data; raises JSONDecodeError if they are no JSON."""
    return Event(event.event, json.loads(event.data), None if event.event == UNNUMBERED else event.id)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Raise ClientError for what is no event stream, perhaps a page of a proxy."""
    try:
        yield
    except (SSEError, json.JSONDecodeError) as error:
        raise ClientError(f"{path}: no event stream came back: {error}") from error
