"""The audit log: every change that somebody asked for, written before it is made."""

from sqlalchemy import Connection, insert, select, update

from storage.database import pages, rows
from storage.database.tables import audit
from storage.domain import AuditEntry, Json, Key, Page, now

NOBODY = "no key needed"  # for requests from this machine, if no keys are required
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


def end(connection: Connection, number: int, *, status: int, change: Json | None = None) -> None:
    """Add the answer's HTTP status to an entry that has none yet, and what was changed."""
    still_open = (audit.c.number == number) & audit.c.status.is_(None)
    connection.execute(update(audit).where(still_open).values(status=status, change=change))


def note(connection: Connection, *, action: str, path: str, change: Json | None = None) -> None:
    """Add an entry for a change from the command line, in the transaction that makes the change."""
    number = begin(connection, key=None, name=COMMAND_LINE, client=COMMAND_LINE, action=action, path=path)
    end(connection, number, status=200, change=change)


def page(connection: Connection, *, limit: int, cursor: str | None) -> Page[AuditEntry]:
    """Entries, latest first."""
    query = select(audit)
    key = audit.c.number
    return pages.page(connection, query, key=key, read=rows.audit_entry, limit=limit, cursor=cursor, descending=True)
