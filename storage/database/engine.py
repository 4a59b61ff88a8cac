"""One way into the database, SQLite or PostgreSQL: a connection to read, and a connection to write."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

BUSY_TIMEOUT_SECONDS = 30
WRITERS = 12  # of one process that may wait for SQLite's lock at a time; others wait for one of them, …
WRITER_SECONDS = 5  # … but not for so long that they take every thread from those who only read
CONNECT_SECONDS = 5  # to a PostgreSQL that does not refuse and does not answer either
LOST_SECONDS = 30  # after which a connection is dead whose other end acknowledges nothing (libpq's tcp_user_timeout)


class Database:
    """An engine and the two transactions it gives; only routes and tasks open them.

    A SQLite transaction that begins by reading cannot be promoted to writing once another process has written, and
    fails at once however long the busy timeout is. So a writer says that it will write, and queues at its beginning.
    Readers have connections of their own: they wait for no writer, nor for a connection that one holds.
    """

    def __init__(self, url: str | URL) -> None:
        """Prepare an engine; no connection is made yet."""
        self.url = url
        if make_url(url).get_backend_name() == "sqlite":
            self.engine = _sqlite(url, pool_size=10, max_overflow=30)
            self._reading: Engine = self.engine  # a transaction sees what was there at its first look
            writers = _sqlite(url, pool_size=WRITERS, max_overflow=0, pool_timeout=WRITER_SECONDS)
            self._writing: Engine = writers.execution_options(accrete_writes=True)
            self.engines: tuple[Engine, ...] = (self.engine, writers)
        else:
            patience = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 1000 * LOST_SECONDS}
            patience = {name: value for name, value in patience.items() if name not in make_url(url).query}
            # A connection that died with a restarted server is noticed and replaced before it is handed out.
            self.engine = create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=30, connect_args=patience)
            self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
            self._writing = self.engine
            self.engines = (self.engine,)

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
        for engine in self.engines:
            engine.dispose()


def is_away(error: SQLAlchemyError) -> bool:
    """Whether the database cannot be reached or asked at the moment, so that the same may succeed later."""
    if isinstance(error, OperationalError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code is None or code & 0xFF != sqlite3.SQLITE_ERROR  # that one is of SQL that can never succeed
    if isinstance(error, PoolTimeout | DisconnectionError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    stands_by = getattr(error.orig, "sqlstate", None) == "25006"  # read_only_sql_transaction
    return error.connection_invalidated or stands_by


def _sqlite(url: str | URL, **pool: int) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, **pool)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


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
