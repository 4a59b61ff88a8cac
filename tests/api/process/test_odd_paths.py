"""The database and the private Redis under any path a file system allows."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kombu import Connection

from api.process.privateredis import PrivateRedis, answers
from storage.migrations import upgrade
from storage.settings import Settings
from tests.api.process.test_supervisor import eventually

NAMES = [
    "feature%2Flogin",
    "c#",
    "what?",
    "a;b",
    "x=1&y=?",
    "two words ",
    "it's",
    'a "quote"',
    "back\\slash",
    "two\nlines",
    "[home]@host:1",
    "Übung",
    os.fsdecode(b"caf\xe9"),  # no UTF-8
    "~",
    "h" * 200,
]


@contextmanager
def running(redis: PrivateRedis) -> Iterator[None]:
    """The server while it answers."""
    with subprocess.Popen(redis.part().command, stdout=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: answers(redis.url))
            yield
        finally:
            process.terminate()
    redis.remove()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_the_database_lies_in_its_home(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    home.mkdir()
    upgrade(Settings(home=home).database)
    assert (home / "accrete.db").read_bytes().startswith(b"SQLite format 3")
    assert list(tmp_path.iterdir()) == [home]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_redis_and_celery_find_the_private_server(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    redis = PrivateRedis(home / "run")
    with running(redis), Connection(Settings(home=home, redis_url=redis.url).broker) as broker:
        broker.ensure_connection(max_retries=1, timeout=60)
    assert not redis.socket.exists()
    assert list((home / "run").iterdir()) == []


def test_where_temporary_folders_have_long_names_too_a_short_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    redis = PrivateRedis(folder / "run")
    assert redis.socket.parent.stat().st_mode & 0o777 == 0o700
    with running(redis):
        assert answers(redis.url)
    assert not redis.socket.parent.exists()
