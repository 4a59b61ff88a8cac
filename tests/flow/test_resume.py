"""Killed at any moment, training goes on from its last checkpoint and ends in the weights of an undisturbed run."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from api.client.client import Client
from api.client.documents import Increment
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.domain import Increment as Row
from storage.domain import StoredCheckpoint
from storage.settings import Settings
from storage.work import increments
from tests.flow.conftest import HASTY, Service
from tests.flow.test_worker import TRAINING, processes, wait_for
from tests.patterns import QUICK, SIZE, unseen, write_zip

pytestmark = pytest.mark.flow
EPOCHS = 24
RECIPE = QUICK | {"epochs": EPOCHS, "augmentation": "crop-flip", "schedule": "plateau", "patience": 4}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that these tests hurt, and start again."""
    started = Service(tmp_path_factory.mktemp("home"), HASTY)
    started.start()
    yield started
    assert started.stop() == 0


def taught(service: Service, name: str, folder: Path) -> str:
    """Id of the second increment of a model, which rehearses and distils; queued on return."""
    with Client(service.url) as client:
        client.create_model(name, image_size=SIZE, recipe=QUICK | {"epochs": 2}, memory={"per_class": 5})
        client.wait(client.start_increment(name, write_zip(folder / "1.zip", ["anise", "basil"]))["id"])
        second = write_zip(folder / "2.zip", ["chive", "dill"])
        return client.start_increment(name, second, recipe=RECIPE)["id"]


def finished(service: Service, increment: str) -> Increment:
    with Client(service.url) as client:
        return client.wait(increment)


def weights(service: Service, name: str) -> str:
    """Digest of the second version's weights."""
    with Client(service.url) as client:
        return client.version(name, 2)["files"]["weights.safetensors"]["sha256"]


@pytest.fixture(scope="module")
def undisturbed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the weights that a model of equal history comes to in one go."""
    done = finished(service, taught(service, "undisturbed", tmp_path_factory.mktemp("undisturbed")))
    assert [attempt["outcome"] for attempt in done["attempts"]] == ["succeeded"]
    return weights(service, "undisturbed")


def row(service: Service, increment: str) -> Row:
    database = Database(Settings(home=service.home).database)
    try:
        with database.read() as connection:
            return increments.get(connection, increment)
    finally:
        database.close()


def checkpoint(service: Service, increment: str) -> StoredCheckpoint:
    """The first one that the row names."""
    wait_for(lambda: row(service, increment).checkpoint)
    found = row(service, increment).checkpoint
    assert found is not None
    return found


def kill_child(service: Service) -> None:
    processes(service, TRAINING)[0].kill()


def kill_worker(service: Service) -> None:
    processes(service, "trainer.workers")[0].kill()


def kill_everything(service: Service) -> None:
    """Supervisor, API, worker, Redis and the training process, and start it all again."""
    supervisor = psutil.Process(service.process.pid)
    everyone = [supervisor, *supervisor.children(recursive=True)]
    assert len(everyone) >= 5
    for process in everyone:
        process.kill()
    service.process.wait(60)
    psutil.wait_procs(everyone, timeout=60)
    service.start()


KILLINGS: tuple[Callable[[Service], None], ...] = (kill_child, kill_worker, kill_everything)


@pytest.mark.parametrize("kill", KILLINGS, ids=["child", "worker", "everything"])
def test_the_weights_are_those_of_an_undisturbed_run(
    service: Service, undisturbed: str, kill: Callable[[Service], None], tmp_path: Path
) -> None:
    increment = taught(service, kill.__name__, tmp_path)
    before = checkpoint(service, increment)
    assert 1 <= before.epoch < EPOCHS
    kill(service)
    done = finished(service, increment)
    assert [attempt["outcome"] for attempt in done["attempts"]] == ["crashed", "succeeded"]
    with Client(service.url) as client:
        events = list(client.events(increment))
        assert [version["version"] for version in client.versions(kill.__name__)] == [1, 2]
        picture = unseen("chive", 1)  # the API, started again with version 1, notices the promotion within a second
        wait_for(lambda: client.predict(kill.__name__, picture)["version"] == 2)
    second = [event.data for event in events if event.data.get("attempt") == 2]
    resumed_from = next(data["resumed_from_epoch"] for data in second if data.get("stage") == "training")
    epochs = [event.data["epoch"] for event in events if event.kind == "epoch" and event.data["attempt"] == 2]
    assert resumed_from >= before.epoch
    assert epochs[0] == resumed_from + 1
    assert epochs == list(range(epochs[0], epochs[-1] + 1))
    assert weights(service, kill.__name__) == undisturbed


def test_a_published_increment_leaves_no_checkpoint_and_no_event_of_one(service: Service, tmp_path: Path) -> None:
    increment = taught(service, "tidy", tmp_path)
    seen: dict[str, int] = {}
    while not (found := row(service, increment)).status.is_final:
        if found.checkpoint is not None:
            seen[found.checkpoint.sha256] = found.checkpoint.epoch
        time.sleep(0.02)  # training needs the processor
    assert len(seen) > 3
    assert list(seen.values()) == sorted(set(seen.values()))
    wait_for(lambda: row(service, increment).checkpoint is None)
    blobs = open_blobs(Settings(home=service.home).blobs)
    assert not seen.keys() & set(blobs.digests())
    with Client(service.url) as client:
        assert {event.kind for event in client.events(increment)} == {"status", "stage", "epoch"}


def test_a_checkpoint_that_is_gone_or_damaged_costs_time_and_nothing_else(
    service: Service, undisturbed: str, tmp_path: Path
) -> None:
    increment = taught(service, "damaged", tmp_path)
    checkpoint(service, increment)
    worker = processes(service, "trainer.workers")[0]
    child = processes(service, TRAINING)[0]
    worker.suspend()  # so that the child cannot leave another one in its place
    child.kill()
    found = row(service, increment).checkpoint
    assert found is not None
    blob = Settings(home=service.home).blobs
    path = Path(blob) / found.sha256[:2] / found.sha256
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    worker.kill()
    done = finished(service, increment)
    assert done["attempts"][-1]["outcome"] == "succeeded"
    assert weights(service, "damaged") == undisturbed
    assert "training starts over: blob" in service.log("worker")
