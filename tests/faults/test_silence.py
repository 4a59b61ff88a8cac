"""A training process that hangs, at any step: given up after a stated silence, which ends one attempt and no more.

The programs know nothing of it: a ``sitecustomize`` in their path has them hang at the step that a file names.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client.client import Client
from tests.flow.conftest import HASTY, Service
from tests.flow.test_worker import TRAINING, processes, training, wait_for
from tests.patterns import QUICK, SIZE, write_zip

pytestmark = pytest.mark.flow
SILENCE_SECONDS = 10
HANGING = """
import os, sys, time

def wanted(step):
    order = os.environ["ACCRETE_TEST_HANG"]
    try:
        with open(order) as file:
            if file.read() != step:
                return False
        os.unlink(order)
    except FileNotFoundError:
        return False
    return True

def hang(step):
    if wanted(step):
        time.sleep(3600)

def compute(step, seconds):
    if wanted(step):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

def before(module, name, call, *arguments):
    original = getattr(module, name)
    def mined(*given, **options):
        call(*arguments)
        return original(*given, **options)
    setattr(module, name, mined)

if "trainer.process" in sys.orig_argv:
    import trainer.process.run, trainer.ingestion.archive, trainer.process.lines
    before(trainer.process.run, "read_job", hang, "starting")
    before(trainer.ingestion.archive, "scan", compute, "long", 1.5 * float(os.environ["ACCRETE_SILENCE_SECONDS"]))
    stage = trainer.process.lines.LineReport.stage
    def mined(self, name, *arguments, **options):
        hang(name)
        return stage(self, name, *arguments, **options)
    trainer.process.lines.LineReport.stage = mined
elif "--multiprocessing-fork" in sys.orig_argv:
    import trainer.ingestion.decoding
    before(trainer.ingestion.decoding, "put_at", hang, "decoder")
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose training processes hang where they are told to."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(HANGING)
    paths = os.pathsep.join(path for path in (str(folder), os.environ.get("PYTHONPATH", "")) if path)
    own = {"PYTHONPATH": paths, "ACCRETE_TEST_HANG": str(folder / "step"), "ACCRETE_THREADS": "2"}
    started = Service(tmp_path_factory.mktemp("home"), HASTY | own | {"ACCRETE_SILENCE_SECONDS": str(SILENCE_SECONDS)})
    started.start()
    yield started
    assert started.stop() == 0


def learned(service: Service, name: str, folder: Path, *, step: str) -> dict[str, Any]:
    """The end of an increment whose training process finds an order."""
    order = Path(service.environment["ACCRETE_TEST_HANG"])
    noise = {"basil/noise.png": os.urandom(3 << 20)}  # enough for decoders of their own
    with Client(service.url) as client:
        client.create_model(name, image_size=SIZE, recipe=QUICK | {"epochs": 2})
        order.write_text(step)
        archive = write_zip(folder / "1.zip", ["anise", "basil"], extra=noise)
        done = client.wait(client.start_increment(name, archive)["id"])
    assert not order.exists()  # it was found, and carried out
    return dict(done)


@pytest.mark.parametrize("step", ["starting", "decoder", "loading", "writing"])
def test_one_that_hangs_is_given_up_with_the_reason_and_the_next_attempt_succeeds(
    service: Service, step: str, tmp_path: Path
) -> None:
    done = learned(service, f"hangs-{step}", tmp_path, step=step)
    first, second = done["attempts"]
    assert (first["outcome"], second["outcome"], done["version"]) == ("crashed", "succeeded", 1)
    assert f"nothing for {SILENCE_SECONDS} seconds" in first["reason"]


def test_one_that_computes_for_longer_than_that_is_left_alone(service: Service, tmp_path: Path) -> None:
    done = learned(service, "long", tmp_path, step="long")
    assert [attempt["outcome"] for attempt in done["attempts"]] == ["succeeded"]


def test_one_that_was_stopped_in_the_middle_of_training_is_given_up(service: Service, tmp_path: Path) -> None:
    with Client(service.url) as client:
        client.create_model("stopped", image_size=SIZE, recipe=QUICK | {"epochs": 12})
        increment = client.start_increment("stopped", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
        processes(service, TRAINING)[0].send_signal(signal.SIGSTOP)
        done = client.wait(increment)
    assert [attempt["outcome"] for attempt in done["attempts"]] == ["crashed", "succeeded"]
    assert "training" in str(done["attempts"][0]["reason"])
    assert "nothing for" in str(done["attempts"][0]["reason"])
