"""What a training process takes from the machine: it yields the processor, and memory that runs out has a name."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from api.client.client import Client
from tests.flow.conftest import Service
from tests.flow.test_worker import LONG, TRAINING, processes, training, wait_for
from tests.patterns import QUICK, SIZE, write_zip

pytestmark = pytest.mark.flow
LARGE = 96  # pixels: an image takes tens of megabytes to learn from


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose training processes may fill a gibibyte."""
    settings = {"ACCRETE_TRAINING_MEMORY_BYTES": str(1 << 30), "ACCRETE_NICENESS": "7", "ACCRETE_THREADS": "2"}
    started = Service(tmp_path_factory.mktemp("home"), settings)
    started.start()
    yield started
    assert started.stop() == 0


def test_memory_that_runs_out_ends_the_increment_at_once_and_says_what_to_do(bounded: Service, tmp_path: Path) -> None:
    recipe = QUICK | {"epochs": 1}
    archive = write_zip(tmp_path / "1.zip", ["anise", "basil"], images=70)
    with Client(bounded.url) as client:
        client.create_model("large", image_size=LARGE, recipe=recipe)
        wanting = client.start_increment("large", archive, recipe={"minibatch": 128})["id"]
        wait_for(lambda: client.increment(wanting)["status"] == "failed")
        failed = client.increment(wanting)
        assert failed["error"] == (
            "training needs more memory than the 1024 MiB it is allowed: lower minibatch in the recipe, "
            "or send fewer images at a time, or raise ACCRETE_TRAINING_MEMORY_BYTES"
        )
        assert [attempt["outcome"] for attempt in failed["attempts"]] == ["failed"]
        few = write_zip(tmp_path / "few.zip", ["anise", "basil"], images=6)
        client.wait(client.start_increment("large", few, recipe={"minibatch": 4})["id"])


def test_every_thread_of_training_gives_way(bounded: Service, tmp_path: Path) -> None:
    with Client(bounded.url) as client:
        client.create_model("gentle", image_size=SIZE, recipe=LONG)
        increment = client.start_increment("gentle", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
        (child,) = processes(bounded, TRAINING)
        threads = [thread.id for thread in child.threads()]
        assert len(threads) > 2
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {7}
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
        (server,) = (one for one in processes(bounded, "-m api") if one.cmdline()[-2:] == ["-m", "api"])
        assert (server.nice(), os.sched_getscheduler(server.pid)) == (0, os.SCHED_OTHER)
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists():
            assert re.fullmatch(r"/autogroup-\d+ nice 7\n", group.read_text())
        client.cancel(increment)


def test_memory_is_held_to_what_is_filled_not_to_what_is_reserved(bounded: Service, tmp_path: Path) -> None:
    """A bound on address space or on what threads reserve would be hit by an import of torch."""
    with Client(bounded.url) as client:
        client.create_model("held", image_size=LARGE, recipe=LONG | {"minibatch": 4})
        increment = client.start_increment("held", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
        (child,) = processes(bounded, TRAINING)
        soft, hard = child.rlimit(psutil.RLIMIT_DATA)
        assert soft < hard or hard == psutil.RLIM_INFINITY
        status = Path(f"/proc/{child.pid}/status").read_text()
        filled, reserved = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) << 10 for name in ("RssAnon", "VmData"))
        assert filled < 1 << 30
        assert filled < reserved <= soft
        client.cancel(increment)


def test_a_bound_that_torch_alone_would_break_is_refused_with_the_number_it_takes(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", {"ACCRETE_TRAINING_MEMORY_BYTES": str(200 << 20)})
    service.start()
    try:
        with Client(service.url) as client:
            client.create_model("small", image_size=SIZE, recipe=QUICK)
            increment = client.start_increment("small", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
            wait_for(lambda: client.increment(increment)["status"] == "failed")
            assert re.fullmatch(
                r"ACCRETE_TRAINING_MEMORY_BYTES allows 200 MiB, and a training process fills (\d+) MiB before it "
                r"begins: set it to (\d+) MiB at the least.",
                str(client.increment(increment)["error"]),
            )
            assert client.increment(increment)["attempt"] == 1
    finally:
        service.stop()
