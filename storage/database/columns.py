"""Kinds of columns that the tables share."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, TypeDecorator

# SQLite numbers rows by itself only in a column of its own INTEGER type.
Sequence = BigInteger().with_variant(Integer, "sqlite")
HIGHEST_INTEGER, HIGHEST_BIG_INTEGER = 2**31 - 1, 2**63 - 1  # of PostgreSQL's columns of these types
Identifier = String(32)
Digest = String(64)
Name = String(200)


class Moment(TypeDecorator[datetime]):
    """A time in UTC. SQLite does not store time zones, so UTC is added again when a row is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """What rows hold."""
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; raises ValueError for a time without a time zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Attach UTC where the database lost it."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
