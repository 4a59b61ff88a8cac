"""Both databases, empty, for each test of them, and a place for an uploaded archive."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.database.engine import Database
from tests.storage.worlds import World


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write the bytes of an upload to a file and say where; the next ones replace them."""

    def write(data: bytes) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A fresh database, and hands to do in it what people and workers do."""
    database = Database(database_url)
    yield World(database)
    database.close()
