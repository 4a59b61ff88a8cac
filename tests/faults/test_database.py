"""PostgreSQL restarted in the middle of an increment: predictions and training go on, and the version comes."""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from api.client.client import Client
from tests.flow.conftest import HASTY, Service
from tests.flow.test_worker import processes, training, wait_for
from tests.patterns import QUICK, SIZE, unseen, write_zip
from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A PostgreSQL that these tests stop and start."""
    with PostgreSQL.running() as started:
        yield started


@pytest.fixture(scope="module")
def service(server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on it."""
    url = server.url(server.create())
    started = Service(tmp_path_factory.mktemp("home"), HASTY | {"ACCRETE_DATABASE_URL": url})
    started.start()
    yield started
    assert started.stop() == 0


@pytest.mark.timeout(900)
def test_a_database_that_is_away_for_a_while_costs_nothing(
    service: Service, server: PostgreSQL, tmp_path: Path
) -> None:
    with Client(service.url) as client:
        client.create_model("restarted", image_size=SIZE, recipe=QUICK, memory={"per_class": 3})
        first = write_zip(tmp_path / "1.zip", ["anise", "basil"])
        assert client.wait(client.start_increment("restarted", first)["id"])
        archive = write_zip(tmp_path / "2.zip", ["chive", "dill"])
        increment = client.start_increment("restarted", archive, recipe=QUICK | {"epochs": 25})["id"]
        wait_for(lambda: training(client, increment))
        server.stop()
        time.sleep(2)
        server.start()
        assert wait_for(lambda: _ended(client, increment), seconds=240)
        found = client.increment(increment)
        assert (found["status"], found["version"]) == ("succeeded", 2)
        picture = unseen("chive", 1)
        wait_for(lambda: client.predict("restarted", picture, durable=True)["version"] == 2)


def _ended(client: Client, increment: str) -> bool:
    from api.client.connection import ClientError

    try:
        return client.increment(increment)["status"] in {"succeeded", "failed", "cancelled"}
    except ClientError:  # the database is on its way back
        return False


@pytest.mark.timeout(900)
def test_training_goes_on_while_the_database_is_away_for_longer_than_a_minute(
    service: Service, server: PostgreSQL, tmp_path: Path
) -> None:
    with Client(service.url) as client:
        client.create_model("away", image_size=SIZE, recipe=QUICK | {"epochs": 30})
        increment = client.start_increment("away", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
        server.stop()
        time.sleep(70)
        server.start()
        assert wait_for(lambda: _ended(client, increment), seconds=240)
        found = client.increment(increment)
        assert [attempt["outcome"] for attempt in found["attempts"]] == ["succeeded"]
        steps = [event.data["epoch"] for event in client.events(increment) if event.kind == "epoch"]
        assert steps == list(range(1, 31))


@pytest.mark.parametrize("how", ["stopped", "hanging"])
def test_a_worker_shuts_down_in_time_while_the_database_is_away(
    service: Service, server: PostgreSQL, how: str, tmp_path: Path
) -> None:
    with Client(service.url) as client:
        client.create_model(how, image_size=SIZE, recipe=QUICK | {"epochs": 2000})
        increment = client.start_increment(how, write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
    worker = processes(service, "trainer.workers")[0]
    if how == "stopped":
        server.stop()
    else:
        server.suspend()
    try:
        time.sleep(3)
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=60)  # not for ever; a moment on a machine that has nothing else to do
    finally:
        if how == "stopped":
            server.start()
        else:
            server.resume()
    with Client(service.url) as client:
        wait_for(lambda: _cancelled(client, increment))  # or it would go on beside what comes next


def _cancelled(client: Client, increment: str) -> bool:
    from api.client.connection import ClientError, Conflict

    with suppress(ClientError):
        with suppress(Conflict):  # cancelled already, by a request whose answer was lost
            client.cancel(increment)
        return client.increment(increment)["status"] == "cancelled"
    return False  # the database is on its way back
