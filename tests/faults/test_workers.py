"""Workers that come too late, and messages that nobody sent or everybody sends: one increment is one version."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis

from api.client.client import Client
from storage.broker import celery_app
from storage.settings import Settings
from tests.flow.conftest import HASTY, MODEST, Service
from tests.flow.test_worker import processes, wait_for
from tests.patterns import QUICK, SIZE, unseen, write_zip

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that these tests hurt."""
    started = Service(tmp_path_factory.mktemp("home"), HASTY)
    started.start()
    yield started
    assert started.stop() == 0


def redis_url(service: Service) -> str:
    return f"unix://{next((service.home / 'run').glob('*.sock'))}"


def settings_of(service: Service) -> Settings:
    return Settings(home=service.home, redis_url=redis_url(service))


@pytest.fixture
def second_worker(service: Service) -> Iterator[subprocess.Popen[bytes]]:
    """Another worker on the same database, store and broker."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    places = {"ACCRETE_HOME": str(service.home), "ACCRETE_REDIS_URL": redis_url(service)}
    command = [sys.executable, "-m", "celery", "-A", "trainer.workers.app", "worker", "--hostname", "second@localhost"]
    process = subprocess.Popen(
        [*command, "--pool", "threads", "--concurrency", "2", "-l", "warning"], env=inherited | MODEST | HASTY | places
    )
    yield process
    process.send_signal(signal.SIGCONT)  # a test may have failed while it was stopped
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def holder(increment: str) -> psutil.Process | None:
    """The worker whose training process works on an increment: either may have claimed it."""
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == f"train {increment}"[:15] and (fork_server := process.parent()) is not None:
            return fork_server.parent()
    return None


def stop_between_writes(process: psutil.Process, database: Path) -> None:
    """Suspend a process where it holds no lock of SQLite's: nobody could take it, and all others would wait."""
    while True:
        process.suspend()
        with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.resume()
                time.sleep(0.05)
            else:
                connection.execute("ROLLBACK")
                return


def test_a_worker_that_was_stopped_past_its_lease_publishes_nothing_when_it_goes_on(
    service: Service, second_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert second_worker.poll() is None
    with Client(service.url) as client:
        client.create_model("stopped", image_size=SIZE, recipe=QUICK | {"epochs": 25})
        increment = client.start_increment("stopped", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        stopped = wait_for(lambda: holder(increment))
        assert isinstance(stopped, psutil.Process)
        stop_between_writes(stopped, service.home / "accrete.db")
        wait_for(lambda: client.increment(increment)["attempt"] == 2)
        stopped.resume()
        done = client.wait(increment)
        assert (done["status"], done["version"]) == ("succeeded", 1)
        assert [attempt["outcome"] for attempt in done["attempts"]] == ["crashed", "succeeded"]
        assert "lease" in str(done["attempts"][0]["reason"])
        wait_for(lambda: not list((service.home / "scratch").glob(f"{increment}-*")))
        assert [version["version"] for version in client.versions("stopped")] == [1]
        assert client.predict("stopped", unseen("anise", 1))["version"] == 1


def test_a_broker_that_forgets_everything_costs_no_increment(service: Service, tmp_path: Path) -> None:
    with Client(service.url) as client:
        client.create_model("flushed", image_size=SIZE, recipe=QUICK)
        asked = []
        for number, labels in enumerate([["anise", "basil"], ["chive", "dill"]]):
            asked.append(client.start_increment("flushed", write_zip(tmp_path / f"{number}.zip", labels))["id"])
            redis.Redis.from_url(redis_url(service)).flushall()
        assert [client.wait(increment)["version"] for increment in asked] == [1, 2]


def test_messages_that_come_twice_or_that_nobody_sent_do_nothing(service: Service, tmp_path: Path) -> None:
    app = celery_app(settings_of(service))
    broker = redis.Redis.from_url(redis_url(service))
    with Client(service.url) as client:
        client.create_model("forged", image_size=SIZE, recipe=QUICK)
        increment = client.start_increment("forged", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        for _ in range(20):
            app.send_task("increment.run", args=[increment])
        for forged in ("0" * 32, "../../etc/passwd", "", "x" * 10_000):
            app.send_task("increment.run", args=[forged])
        app.send_task("increment.run", args=[])
        app.send_task("increment.run", kwargs={"increment_id": {"$ne": None}})
        app.send_task("no.such.task", args=[1])
        broker.lpush("celery", b"no message", b"{}", b"\x80\x04pickled", b'{"body": "x"}')
        done = client.wait(increment)
        assert (done["version"], len(done["attempts"])) == (1, 1)
        later = client.start_increment("forged", write_zip(tmp_path / "2.zip", ["chive", "dill"]))["id"]
        assert client.wait(later)["version"] == 2


def test_a_killed_broker_comes_back_and_what_was_asked_meanwhile_is_done(service: Service, tmp_path: Path) -> None:
    with Client(service.url) as client:
        client.create_model("cut", image_size=SIZE, recipe=QUICK)
        processes(service, "redis-server")[0].kill()
        increment = client.start_increment("cut", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        assert client.wait(increment)["version"] == 1
