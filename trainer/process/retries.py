"""Transactions that wait for a database that is away: restarted, cut off, locked, or without room on its disk."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from storage.database.engine import Database, is_unavailable

PAUSE_SECONDS = 1.0  # between two tries

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


def persist(database: Database, write: Callable[[Connection], Answer], *, waiting: Callable[[], None]) -> Answer:
    """Run a transaction that writes, and retry while the database is away; ``waiting`` is called before each retry."""
    return _retried(lambda: _write(database, write), waiting)


def look(database: Database, read: Callable[[Connection], Answer], *, waiting: Callable[[], None]) -> Answer:
    """Run a transaction that reads, with retries as in `persist`."""
    return _retried(lambda: _read(database, read), waiting)


def _retried(transaction: Callable[[], Answer], waiting: Callable[[], None]) -> Answer:
    while True:
        try:
            return transaction()
        except SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
            log.warning("the database cannot be reached, trying again: %s", error)
        waiting()
        time.sleep(PAUSE_SECONDS)


def _write(database: Database, write: Callable[[Connection], Answer]) -> Answer:
    with database.write() as connection:
        return write(connection)


def _read(database: Database, read: Callable[[Connection], Answer]) -> Answer:
    with database.read() as connection:
        return read(connection)
