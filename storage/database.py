"""One way into the database, SQLite or PostgreSQL: a connection to read, and a connection to write."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url

BUSY_TIMEOUT_SECONDS = 30


class Database:
    """An engine and the two transactions it gives; only routes and tasks open them.

    A SQLite transaction that begins by reading cannot be promoted to writing once another process has written, and
    fails at once however long the busy timeout is. So a writer says that it will write, and queues at its beginning.
    """

    def __init__(self, url: str | URL) -> None:
        """Prepare an engine; no connection is made yet."""
        self.url = url
        if make_url(url).get_backend_name() == "sqlite":
            self.engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
            self._reading = self.engine  # a transaction sees what was there at its first look
        else:
            # A connection that died with a restarted server is noticed and replaced before it is handed out.
            self.engine = create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=30)
            self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
        self._writing = self.engine.execution_options(accrete_writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; whatever is written through it by mistake is rolled back."""
        with self._reading.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed at the end, rolled back on any error."""
        with self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own idea of when to BEGIN would hide ours
    cursor = connection.cursor()
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = FULL")  # WAL's NORMAL may lose the last commits in a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Set WAL mode: of several connections that find a new file some are refused at once, whatever their timeout."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("accrete_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
