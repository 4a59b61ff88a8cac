"""Writing to a database that may be away for a while."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from storage.database import Database

PATIENCE_SECONDS = 60.0

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


def persist(database: Database, write: Callable[[Any], Answer]) -> Answer:
    """Run a transaction, again and again while the database cannot be reached, for a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with database.write() as connection:
                return write(connection)
        except OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the database cannot be reached, trying again: %s", error)
            time.sleep(1)
