"""The events of an increment's life, stored and numbered, so that a reader can resume after a lost connection."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select

from storage.database import rows
from storage.database.columns import HIGHEST_INTEGER
from storage.database.tables import events
from storage.domain import Event, IncrementStatus, now

PER_QUERY = 200  # increments; SQLite bounds the depth of an expression


def add(connection: Connection, increment_id: str, *, kind: str, data: Mapping[str, Any]) -> None:
    """Append an event; only a transaction that has locked the increment's row may do so, one at a time."""
    following = (
        select(func.coalesce(func.max(events.c.sequence), 0) + 1)
        .where(events.c.increment_id == increment_id)
        .scalar_subquery()
    )
    connection.execute(
        insert(events).values(
            increment_id=increment_id, sequence=following, kind=kind, data=dict(data), created_at=now()
        )
    )


def add_status(connection: Connection, increment_id: str, status: IncrementStatus, **more: Any) -> None:
    """Append a change of status."""
    add(connection, increment_id, kind="status", data={"status": status, **more})


def after(connection: Connection, increment_id: str, sequence: int) -> tuple[Event, ...]:
    """Every event later than ``sequence``, in order."""
    query = (
        select(events)
        .where(events.c.increment_id == increment_id)
        .where(events.c.sequence > min(sequence, HIGHEST_INTEGER))
        .order_by(events.c.sequence)
    )
    return tuple(rows.event(row) for row in connection.execute(query).mappings())


def after_each(connection: Connection, wanted: Mapping[str, int]) -> dict[str, tuple[Event, ...]]:
    """The events of several increments, by increment id; ``wanted`` gives each the sequence number to begin after."""
    found: dict[str, tuple[Event, ...]] = {}
    everyone = list(wanted.items())
    for start in range(0, len(everyone), PER_QUERY):
        later = [
            and_(events.c.increment_id == increment_id, events.c.sequence > min(sequence, HIGHEST_INTEGER))
            for increment_id, sequence in everyone[start : start + PER_QUERY]
        ]
        query = select(events).where(or_(*later)).order_by(events.c.increment_id, events.c.sequence)
        for row in connection.execute(query).mappings():
            event = rows.event(row)
            found[event.increment_id] = (*found.get(event.increment_id, ()), event)
    return found
