"""Values that records of every kind use: identifiers, the time, a page of a list."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import uuid4

Json = Mapping[str, Any]


def new_id() -> str:
    """A fresh identifier: 32 hexadecimal digits of a random UUID."""
    return uuid4().hex


def now() -> datetime:
    """The current time in UTC, by this machine's clock; leases use `storage.database.clock`."""
    return datetime.now(UTC)


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A slice of a list and the cursor of the next one."""

    items: tuple[Item, ...]
    next_cursor: str | None
