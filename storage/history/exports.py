"""Files of versions that are made when somebody asks for them: the row is the wish, and says what became of it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from storage.database import locks, rows
from storage.database.clock import moment
from storage.database.tables import exports
from storage.domain import Export, Version, now

_IS_OPEN = and_(exports.c.agreement.is_(None), exports.c.error.is_(None))
_IS_FREE = or_(exports.c.lease_expires_at.is_(None), exports.c.lease_expires_at < moment())


def find(connection: Connection, version: Version, file: str) -> Export | None:
    """What became of the wish for a file; None if nobody has asked for it."""
    found = connection.execute(select(exports).where(_of(version.model_id, version.number, file)))
    row = found.mappings().one_or_none()
    return rows.export(row) if row is not None else None


def request(connection: Connection, version: Version, file: str) -> Export:
    """Ask for a file of a version; asking again changes nothing."""
    locks.lock_model(connection, version.model_id)
    if (present := find(connection, version, file)) is not None:
        return present
    asked = Export(
        model_id=version.model_id,
        version=version.number,
        file=file,
        attempts=0,
        lease_expires_at=None,
        agreement=None,
        error=None,
        created_at=now(),
    )
    connection.execute(insert(exports).values(asdict(asked)))
    return asked


def waiting(connection: Connection) -> list[Export]:
    """Files that were asked for and that no process makes just now, the oldest wish first."""
    found = connection.execute(select(exports).where(_IS_OPEN, _IS_FREE).order_by(exports.c.created_at))
    return [rows.export(row) for row in found.mappings()]


def begin(connection: Connection, asked: Export, *, lease_seconds: float, most_attempts: int) -> bool:
    """Begin an attempt, whose lease is to be renewed; False if another process has begun one, or there were too many.

    Too many attempts without an end become the wish's error: the file ends every process that makes it.
    """
    locks.lock_model(connection, asked.model_id)
    this = _of(asked.model_id, asked.version, asked.file)
    ended = f"making it has ended the process {most_attempts} times in a row"
    is_last = exports.c.attempts >= most_attempts
    given_up = update(exports).where(this, _IS_OPEN, _IS_FREE, is_last).values(error=ended)
    if connection.execute(given_up).rowcount:
        return False
    begun = {"attempts": exports.c.attempts + 1, "lease_expires_at": moment(lease_seconds)}
    return connection.execute(update(exports).where(this, _IS_OPEN, _IS_FREE).values(begun)).rowcount == 1


def renew(connection: Connection, asked: Export, *, lease_seconds: float) -> None:
    """Prolong the lease of an attempt."""
    this = _of(asked.model_id, asked.version, asked.file)
    connection.execute(update(exports).where(this).values(lease_expires_at=moment(lease_seconds)))


def succeed(connection: Connection, asked: Export, agreement: Mapping[str, Any]) -> None:
    """Record that the file is there, and how well it agrees with the weights."""
    this = _of(asked.model_id, asked.version, asked.file)
    connection.execute(update(exports).where(this).values(agreement=dict(agreement), lease_expires_at=None))


def fail(connection: Connection, asked: Export, reason: str) -> None:
    """Record why there will be no such file."""
    this = _of(asked.model_id, asked.version, asked.file)
    connection.execute(update(exports).where(this, _IS_OPEN).values(error=reason, lease_expires_at=None))


def _of(model_id: str, number: int, file: str) -> ColumnElement[bool]:
    return and_(exports.c.model_id == model_id, exports.c.version == number, exports.c.file == file)
