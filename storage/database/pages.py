"""Lists page after page, by keyset: a page begins after the key of the last record of the page before it."""

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Connection, Integer, RowMapping, Select, column, literal, tuple_

from storage.database.columns import HIGHEST_BIG_INTEGER, HIGHEST_INTEGER
from storage.domain import Page
from storage.errors import Invalid

Record = TypeVar("Record")
_ROW = column("row", Integer())  # what cursors of rows in memory count
Key = ColumnElement[Any] | Sequence[ColumnElement[Any]]  # a unique column, or columns that are unique together


def page(
    connection: Connection,
    query: Select[Any],
    *,
    key: Key,
    read: Callable[[RowMapping], Record],
    limit: int,
    cursor: str | None,
    descending: bool = False,
) -> Page[Record]:
    """The next ``limit`` records after ``cursor``, ordered by a unique key, with the cursor of the next page.

    Raises `Invalid` when ``cursor`` was not made here.
    """
    columns = [key] if isinstance(key, ColumnElement) else list(key)
    if cursor is not None:
        after = tuple_(*map(literal, _decode(cursor, columns), [column.type for column in columns]))
        place: Any = tuple_(*columns)
        query = query.where(place < after if descending else place > after)
    query = query.order_by(*(column.desc() if descending else column.asc() for column in columns)).limit(limit + 1)
    named = [column.label(f"_key{number}") for number, column in enumerate(columns)]
    rows = connection.execute(query.add_columns(*named)).mappings().all()
    names = [column.name for column in named]
    records = [read(_without(row, names)) for row in rows[:limit]]
    following = _encode([rows[limit - 1][name] for name in names]) if len(rows) > limit else None
    return Page(items=tuple(records), next_cursor=following)


def of_rows(rows: Sequence[int], *, limit: int, cursor: str | None) -> Page[int]:
    """The next ``limit`` of some ascending row numbers after ``cursor``; raises `Invalid` as `page` does."""
    after = -1 if cursor is None else _decode(cursor, [_ROW])[0]
    first = bisect_right(rows, after)
    shown = tuple(rows[first : first + limit])
    return Page(items=shown, next_cursor=_encode([shown[-1]]) if len(rows) > first + limit else None)


def _without(row: RowMapping, names: Sequence[str]) -> Any:
    return {name: value for name, value in row.items() if name not in names}


def _encode(values: Sequence[Any]) -> str:
    texts = [value.isoformat() if isinstance(value, datetime) else str(value) for value in values]
    text = texts[0] if len(texts) == 1 else json.dumps(texts)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, columns: Sequence[ColumnElement[Any]]) -> list[Any]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        texts = [text] if len(columns) == 1 else json.loads(text)
        values = [_value(one, column) for one, column in zip(texts, columns, strict=True)]
        if _encode(values) != cursor:
            raise ValueError(text)
    except (binascii.Error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise Invalid(f"cursor {cursor!r} is none of ours: pass on next_cursor as it came, or leave it out") from error
    return values


def _value(text: str, column: ColumnElement[Any]) -> Any:
    """A value as the column takes it: PostgreSQL refuses numbers out of range and texts with a NUL.

    Raises ValueError for any other.
    """
    kind = column.type.python_type
    value = datetime.fromisoformat(text) if kind is datetime else kind(text)
    highest = HIGHEST_BIG_INTEGER if isinstance(column.type, BigInteger) else HIGHEST_INTEGER
    if isinstance(value, str):
        fits = value != "" and "\0" not in value
    else:
        fits = value.tzinfo is not None if isinstance(value, datetime) else 0 <= value <= highest
    if not fits:
        raise ValueError(text)
    return value
