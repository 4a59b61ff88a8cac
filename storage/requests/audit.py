"""The audit log: every change that somebody asked for, written before it is made."""

from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage import safetext
from storage.database import pages, rows
from storage.database.tables import audit
from storage.domain import AuditEntry, Json, Key, Page, now

NOBODY = "no key needed"  # for requests from this machine, if no keys are required
entry: ContextVar[int | None] = ContextVar("entry", default=None)  # number of that of the request under way
COMMAND_LINE = "command line"  # needs no key: with access to the database, anybody could make one


def begin(connection: Connection, *, key: Key | None, name: str = NOBODY, client: str, action: str, path: str) -> int:
    """Add an entry for a change before it is made; returns the entry's number, for `end`."""
    values = {
        "created_at": now(),
        "key_id": key.id if key is not None else None,
        "key_name": key.name if key is not None else name,
        "client": client[:100],
        "action": action[:200],
        "path": path[:2000],
    }
    return int(connection.scalars(insert(audit).values(**values).returning(audit.c.number)).one())


def record_change(connection: Connection, **change: Any) -> None:
    """Add to the entry of the request under way what it changes, in the transaction that changes it.

    ``changed`` holds values before and after, by field; ``made`` and ``deleted`` say what: values that JSON has, and
    nothing that was erased. What looks like a secret is masked. Does nothing without an entry.
    """
    if (number := entry.get()) is not None:
        _write_change(connection, number, change)


def end(connection: Connection, number: int, *, status: int) -> None:
    """Add the answer's HTTP status to an entry that has none yet."""
    still_open = (audit.c.number == number) & audit.c.status.is_(None)
    connection.execute(update(audit).where(still_open).values(status=status))


def note(connection: Connection, *, action: str, path: str, change: Json) -> None:
    """Add an entry for a change from the command line, in the transaction that makes the change."""
    number = begin(connection, key=None, name=COMMAND_LINE, client=COMMAND_LINE, action=action, path=path)
    _write_change(connection, number, change)
    end(connection, number, status=200)


def page(connection: Connection, *, limit: int, cursor: str | None) -> Page[AuditEntry]:
    """Entries, latest first."""
    query = select(audit)
    key = audit.c.number
    return pages.page(connection, query, key=key, read=rows.audit_entry, limit=limit, cursor=cursor, descending=True)


def _write_change(connection: Connection, number: int, change: Json) -> None:
    connection.execute(update(audit).where(audit.c.number == number).values(change=safetext.deeply(dict(change))))
