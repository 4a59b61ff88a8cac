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
WRITERS = 12  # write connections of one process to SQLite: so many threads can wait for its lock at a time
WRITER_SECONDS = 5  # wait for a write connection; a longer wait could block all threads, also those that only read
CONNECT_SECONDS = 5  # wait for a PostgreSQL server that does not answer
LOST_SECONDS = 30  # without a TCP acknowledgement, after which a connection is lost (libpq's tcp_user_timeout)


class Database:
    """The database's engines and its two kinds of transaction; only routes and tasks open transactions.

    A SQLite transaction that begins with a read cannot write once another process has written: it fails at once,
    whatever the busy timeout. So a writer asks for SQLite's lock when its transaction begins, and waits there.
    Readers have their own connections. They wait neither for a writer nor for a writer's connection.
    """

    def __init__(self, url: str | URL) -> None:
        """Prepare an engine; no connection is made yet."""
        self.url = url
        if make_url(url).get_backend_name() == "sqlite":
            self.engine = _sqlite(url, pool_size=10, max_overflow=30)
            self._reading: Engine = self.engine  # a transaction sees the state at its first query
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
        """A transaction for reading, with one consistent view; writes made through it by mistake are rolled back."""
        with self._reading.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed at the end, rolled back on any error."""
        with self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        for engine in self.engines:
            engine.dispose()


def is_unavailable(error: SQLAlchemyError) -> bool:
    """Whether an error means that the database is unavailable now, so that the same statement may succeed later."""
    if isinstance(error, OperationalError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code is None or code & 0xFF != sqlite3.SQLITE_ERROR  # this code means SQL that can never succeed
    if isinstance(error, PoolTimeout | DisconnectionError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    is_read_only = getattr(error.orig, "sqlstate", None) == "25006"  # read_only_sql_transaction
    return error.connection_invalidated or is_read_only


def _sqlite(url: str | URL, **pool: int) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, **pool)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver sends no BEGIN of its own: `_begin_sqlite` does
    cursor = connection.cursor()
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = FULL")  # WAL's NORMAL may lose the last commits in a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Set WAL mode, with retries.

    When several connections open a new file at once, SQLite refuses some of them without waiting for the timeout.
    """
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
