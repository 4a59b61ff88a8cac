"""The worker starts an upgrade once, only if there is something to do, and ends it with itself."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.database.engine import Database
from tests.conftest import copy_sqlite
from tests.storage.worlds import World
from trainer.workers.upgrading import Upgrading


@pytest.fixture
def world(tmp_path: Path, migrated_sqlite: Path) -> World:
    copy_sqlite(migrated_sqlite, tmp_path / "accrete.db")
    made = World(Database(f"sqlite:///{tmp_path / 'accrete.db'}"))
    made.create()
    return made


def started(monkeypatch: pytest.MonkeyPatch, program: str) -> list[Any]:
    """Have another program run instead; the processes that were started."""
    processes: list[Any] = []
    plain = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        assert command == [sys.executable, "-m", "trainer.process.upgrade", "--attached"]
        processes.append(plain([sys.executable, "-c", program], **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    return processes


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_without_such_versions_nothing_is_started(world: World, monkeypatch: pytest.MonkeyPatch):
    processes = started(monkeypatch, "")
    Upgrading(world.database)._run()
    assert processes == []


def test_what_the_process_says_is_logged(world: World, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    world.learn(world.model(), "a", "b")
    started(monkeypatch, "print('plants version 1: network.onnx added')")
    Upgrading(world.database)._run()
    assert [record.message for record in caplog.records] == [
        "1 versions have no network.onnx: it is added to them in the background",
        "upgrade: plants version 1: network.onnx added",
    ]


def test_a_crash_is_logged_and_no_more(world: World, monkeypatch, caplog):
    world.learn(world.model(), "a", "b")
    started(monkeypatch, "raise SystemExit(3)")
    Upgrading(world.database)._run()
    assert "ended early, with exit status 3" in caplog.text


def test_a_database_that_is_away_is_logged_and_no_more(tmp_path: Path, caplog):
    Upgrading(Database(f"sqlite:///{tmp_path / 'no folder' / 'accrete.db'}"))._run()
    assert "versions could not be upgraded" in caplog.text


def test_closing_ends_the_process_and_nothing_is_started_afterwards(world: World, monkeypatch, caplog):
    world.learn(world.model(), "a", "b")
    processes = started(monkeypatch, "import time; time.sleep(600)")
    running = Upgrading(world.database)
    running.start()
    eventually(lambda: len(processes) == 1)
    running.close()
    assert processes[0].wait(60) == -9
    running._run()
    assert len(processes) == 1
    assert "ended early" not in caplog.text
