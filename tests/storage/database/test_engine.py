"""The two transactions: readers see one state of things, writers queue, and nothing is half done."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError, StatementError

from storage.database.engine import Database
from storage.database.tables import models as models_table
from storage.domain import new_id
from storage.history import models
from storage.material import batches
from tests.storage.worlds import World, together


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """A fresh SQLite file; what holds for it alone is tested once."""
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    yield database
    database.close()


def count_up(world: World, *, pause: float) -> None:
    """Read, think, write: the write is only right if nobody came between."""
    with world.database.write() as connection:
        seen = models.lock(connection, "plants").last_version
        time.sleep(pause)
        connection.execute(update(models_table).values(last_version=seen + 1))


def test_writers_that_first_read_queue_instead_of_failing(world: World):
    world.create()
    together(*[lambda: count_up(world, pause=0.02)] * 8)
    assert world.model().last_version == 8


def test_a_writer_in_another_process_is_waited_for(world: World):
    """Two engines share nothing, as two processes do."""
    world.create()
    other = World(Database(world.database.url))
    together(*[lambda: count_up(world, pause=0.02)] * 4, *[lambda: count_up(other, pause=0.02)] * 4)
    assert world.model().last_version == 8
    other.database.close()


def test_readers_do_not_wait_for_a_writer(world: World):
    world.create()
    with world.database.write() as connection:
        connection.execute(update(models_table).values(last_version=7))
        assert world.model().last_version == 0
    assert world.model().last_version == 7


def test_a_reader_sees_one_state_of_things(world: World):
    world.create()
    with world.database.read() as connection:
        before = models.get(connection, "plants")
        count_up(world, pause=0)
        world.create("other")
        assert models.get(connection, "plants") == before
        assert len(models.page(connection, limit=10, cursor=None).items) == 1
    assert world.model().last_version == 1


def test_a_writer_sees_what_was_committed_while_it_waited(world: World):
    world.create()
    started = Barrier(2)

    def late() -> None:
        started.wait()
        count_up(world, pause=0)

    thread = Thread(target=late)
    thread.start()
    with world.database.write() as connection:
        seen = models.lock(connection, "plants").last_version
        started.wait()
        time.sleep(0.1)
        connection.execute(update(models_table).values(last_version=seen + 10))
    thread.join(60)
    assert world.model().last_version == 11


def test_an_error_undoes_the_transaction(world: World):
    def fail() -> None:
        with world.database.write() as connection:
            connection.execute(update(models_table).values(last_version=5))
            raise LookupError

    world.create()
    with pytest.raises(LookupError):
        fail()
    assert world.model().last_version == 0


def test_what_a_reader_writes_by_mistake_is_not_kept(world: World):
    world.create()
    with world.database.read() as connection:
        connection.execute(update(models_table).values(last_version=5))
    assert world.model().last_version == 0


def test_a_row_that_refers_to_nothing_is_refused(world: World):
    with pytest.raises(IntegrityError):
        world.write(batches.create, model_id=new_id())
    assert world.rows()["batches"] == 0


def test_moments_come_back_in_utc_to_the_microsecond(world: World):
    world.create()
    there = datetime(2024, 2, 29, 23, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))
    with world.database.write() as connection:
        connection.execute(update(models_table).values(created_at=there))
    found = world.model().created_at
    assert found == there
    assert found.tzinfo is UTC


def test_a_moment_without_a_zone_is_refused(world: World):
    with pytest.raises(StatementError, match="no time zone"), world.database.write() as connection:
        connection.execute(select(models_table).where(models_table.c.created_at < datetime(2024, 1, 1)))  # noqa: DTZ001


def test_sqlite_writes_ahead_keeps_every_commit_and_enforces_references(sqlite: Database):
    for transaction in (sqlite.read, sqlite.write):
        with transaction() as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
            assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_sqlite_makes_a_new_file_for_many_at_once(tmp_path: Path):
    for number in range(20):
        url = f"sqlite:///{tmp_path / f'{number}.db'}"

        def open_it(url: str = url) -> None:
            database = Database(url)
            with database.write() as connection:
                connection.execute(text("CREATE TABLE IF NOT EXISTS t (a INTEGER)"))
            database.close()

        together(*[open_it] * 6)
