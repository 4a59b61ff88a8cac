"""PostgreSQL restarted in the middle of an increment: predictions and training go on, and the version comes."""

import signal
import time
from pathlib import Path

import pytest

from api.client.client import Client
from tests.flow.conftest import HASTY, Service
from tests.flow.test_worker import processes, training, wait_for
from tests.patterns import QUICK, SIZE, unseen, write_zip
from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.flow


@pytest.mark.timeout(600)
def test_a_database_that_is_away_for_a_while_costs_nothing(tmp_path: Path) -> None:
    server = PostgreSQL()
    server.start()
    service = Service(tmp_path / "home", HASTY | {"ACCRETE_DATABASE_URL": server.url(server.create())})
    try:
        service.start()
        with Client(service.url) as client:
            client.create_model("m", image_size=SIZE, recipe=QUICK, memory={"per_class": 3})
            assert client.wait(client.start_increment("m", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"])
            archive = write_zip(tmp_path / "2.zip", ["chive", "dill"])
            increment = client.start_increment("m", archive, recipe=QUICK | {"epochs": 25})["id"]
            wait_for(lambda: training(client, increment))
            server.stop()
            time.sleep(2)
            server.start()
            done = wait_for(lambda: _ended(client, increment), seconds=240)
            assert done
            found = client.increment(increment)
            assert (found["status"], found["version"]) == ("succeeded", 2)
            assert client.predict("m", unseen("chive", 1), durable=True)["version"] == 2
    finally:
        code = service.stop()
        server.remove()
    assert code == 0


def _ended(client: Client, increment: str) -> bool:
    from api.client.connection import ClientError

    try:
        return client.increment(increment)["status"] in {"succeeded", "failed"}
    except ClientError:  # the database is on its way back
        return False


@pytest.mark.timeout(600)
def test_training_goes_on_while_the_database_is_away_for_longer_than_a_minute(tmp_path: Path) -> None:
    server = PostgreSQL()
    server.start()
    service = Service(tmp_path / "home", HASTY | {"ACCRETE_DATABASE_URL": server.url(server.create())})
    try:
        service.start()
        with Client(service.url) as client:
            client.create_model("m", image_size=SIZE, recipe=QUICK | {"epochs": 30})
            increment = client.start_increment("m", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
            wait_for(lambda: training(client, increment))
            server.stop()
            time.sleep(70)
            server.start()
            assert wait_for(lambda: _ended(client, increment), seconds=240)
            found = client.increment(increment)
            assert [attempt["outcome"] for attempt in found["attempts"]] == ["succeeded"]
            steps = [event.data["epoch"] for event in client.events(increment) if event.kind == "epoch"]
            assert steps == list(range(1, 31))
    finally:
        code = service.stop()
        server.remove()
    assert code == 0


@pytest.mark.parametrize("how", ["stopped", "hanging"])
def test_a_worker_shuts_down_in_time_while_the_database_is_away(how: str, tmp_path: Path) -> None:
    server = PostgreSQL()
    server.start()
    service = Service(tmp_path / "home", HASTY | {"ACCRETE_DATABASE_URL": server.url(server.create())})
    try:
        service.start()
        with Client(service.url) as client:
            client.create_model("m", image_size=SIZE, recipe=QUICK | {"epochs": 2000})
            increment = client.start_increment("m", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
            wait_for(lambda: training(client, increment))
        worker = processes(service, "trainer.workers")[0]
        if how == "stopped":
            server.stop()
        else:
            server.suspend()
        time.sleep(3)
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=30)  # well within what a machine under load needs, and not for ever
    finally:
        server.resume()
        service.stop()
        server.remove()
