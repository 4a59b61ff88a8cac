"""The worker under the hands of a user: progress, cancellation, crashes, restarts."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import pytest
import torch
from safetensors.torch import load_file

from api.client.client import Client
from tests.flow.conftest import HASTY, Grower, Service
from tests.patterns import QUICK, SIZE, unseen, write_zip

pytestmark = pytest.mark.flow
LONG = QUICK | {"epochs": 2000}
TRAINING = "train "  # what a training process is named, with its increment


def wait_for(found: Callable[[], object], *, seconds: float = 240.0) -> object:
    """What a look gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return answer


def training(client: Client, increment_id: str) -> bool:
    """Whether an increment has taken its first steps."""
    progress = client.increment(increment_id)["progress"]
    return progress is not None and progress["stage"] == "training" and progress["step"] is not None


def processes(service: Service, word: str) -> list[psutil.Process]:
    """Living processes of a service whose name or command line holds a word."""
    everything = psutil.Process(service.process.pid).children(recursive=True)
    alive = (process for process in everything if process.status() != psutil.STATUS_ZOMBIE)
    return [process for process in alive if word in " ".join([process.name(), *process.cmdline()])]


def test_progress_reaches_the_increment_and_its_stream_within_a_second(client: Client, grower: Grower) -> None:
    increment = grower.push("anise", "basil", recipe=QUICK | {"epochs": 24})["id"]
    wait_for(lambda: training(client, increment))
    seen = [
        (time.monotonic(), event.data)
        for event in client.events(increment)
        if event.kind == "progress" and event.data["stage"] == "training"
    ]
    assert {"epoch", "epochs", "step", "steps", "loss", "images_per_second", "eta_seconds"} <= seen[-1][1].keys()
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(seen)]
    assert len(seen) >= 3
    # Every 0.2 s out of the training process, every 0.25 s on the two legs from there: a second where nobody else wants
    # the processor. The median, and ten times that: a machine that has much to do is late, not silent.
    assert median(gaps) < 10.0
    kinds = [event.kind for event in client.events(increment)]
    assert kinds.count("epoch") == 24
    assert [event.data["stage"] for event in client.events(increment) if event.kind == "stage"] == [
        "starting", "ingesting", "loading", "training", "evaluating", "selecting", "writing", "publishing",
    ]  # fmt: skip


def test_a_stream_resumes_after_the_last_event_seen(client: Client, grower: Grower) -> None:
    increment = grower.learn("anise", "basil")["id"]
    everything = [event for event in client.events(increment) if event.id is not None]
    half = len(everything) // 2
    resumed = [
        event for event in client.events(increment, last_event_id=everything[half - 1].id) if event.id is not None
    ]
    assert resumed == everything[half:]


def test_cancel_stops_training_within_five_seconds(client: Client, service: Service, grower: Grower) -> None:
    increment = grower.push("anise", "basil", recipe=LONG)["id"]
    wait_for(lambda: training(client, increment))
    assert processes(service, TRAINING)
    client.cancel(increment)
    wait_for(lambda: client.increment(increment)["status"] == "cancelled")
    assert not processes(service, TRAINING)
    assert list(client.versions(grower.name)) == []
    with pytest.raises(Exception, match="cancelled already"):
        client.cancel(increment)
    client.retry(increment)
    wait_for(lambda: training(client, increment))
    client.cancel(increment)
    wait_for(lambda: client.increment(increment)["status"] == "cancelled")


def test_a_queued_increment_is_cancelled_at_once(client: Client, grower: Grower) -> None:
    running = grower.push("anise", "basil", recipe=LONG)["id"]
    queued = grower.push("chive", "dill", recipe=LONG)["id"]
    assert client.cancel(queued)["status"] == "cancelled"
    client.cancel(running)
    wait_for(lambda: client.increment(running)["status"] == "cancelled")


def test_a_killed_training_process_is_a_failed_attempt_with_its_reason_and_the_next_one_succeeds(
    client: Client, service: Service, grower: Grower
) -> None:
    increment = grower.push("anise", "basil", recipe=QUICK | {"epochs": 30})["id"]
    wait_for(lambda: training(client, increment))
    processes(service, TRAINING)[0].kill()
    done = client.wait(increment)
    assert [attempt["outcome"] for attempt in done["attempts"]] == ["crashed", "succeeded"]
    assert "SIGKILL" in str(done["attempts"][0]["reason"])
    assert done["version"] == 1


def test_a_loss_that_is_not_finite_fails_at_once_and_says_so(client: Client, grower: Grower) -> None:
    wild = QUICK | {"learning_rate": 10.0, "momentum": 0.99, "gradient_clip": None, "epochs": 100, "weight_decay": 1.0}
    increment = grower.push("anise", "basil", recipe=wild)["id"]
    final = list(client.events(increment))[-1].data
    assert final["status"] == "failed"
    assert "the loss is" in final["error"]
    assert "learning_rate" in final["error"]
    assert final["attempt"] == 1


@pytest.fixture(scope="module")
def own_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that these tests may hurt."""
    impatient = HASTY | {"ACCRETE_MAX_CRASHES": "2", "ACCRETE_CHECKPOINT_SECONDS": "3600"}  # every crash counts
    started = Service(tmp_path_factory.mktemp("home"), impatient)
    started.start()
    yield started
    assert started.stop() == 0


def test_too_many_crashes_in_a_row_are_the_end(own_service: Service, tmp_path: Path) -> None:
    with Client(own_service.url) as client:
        client.create_model("crashing", image_size=SIZE, recipe=LONG)
        increment = client.start_increment("crashing", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        for attempt in (1, 2):
            wait_for(lambda: training(client, increment) and client.increment(increment)["attempt"] == attempt)  # noqa: B023
            processes(own_service, TRAINING)[0].kill()
        wait_for(lambda: client.increment(increment)["status"] == "failed")
        assert "2 attempts in a row" in str(client.increment(increment)["error"])


def test_a_killed_worker_is_restarted_and_the_increment_goes_on(own_service: Service, tmp_path: Path) -> None:
    with Client(own_service.url) as client:
        client.create_model("orphaned", image_size=SIZE, recipe=QUICK | {"epochs": 30})
        increment = client.start_increment("orphaned", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
        orphan = processes(own_service, TRAINING)[0]
        processes(own_service, "trainer.workers")[0].kill()
        wait_for(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
        done = client.wait(increment)
        assert (done["version"], [attempt["outcome"] for attempt in done["attempts"]]) == (1, ["crashed", "succeeded"])
        assert "lease" in str(done["attempts"][0]["reason"])


def test_stopping_while_training_leaves_no_process_and_the_next_start_goes_on(
    own_service: Service, tmp_path: Path
) -> None:
    with Client(own_service.url) as client:
        client.create_model("stopping", image_size=SIZE, recipe=QUICK | {"epochs": 30})
        increment = client.start_increment("stopping", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
    everything = psutil.Process(own_service.process.pid).children(recursive=True)
    assert own_service.stop() == 0
    assert [p for p in everything if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    own_service.start()
    with Client(own_service.url) as client:
        done = client.wait(increment)
        assert [attempt["outcome"] for attempt in done["attempts"]] == ["released", "succeeded"]
        assert client.predict("stopping", unseen("anise", 1))["version"] == 1


def test_a_second_service_on_the_same_home_is_refused_with_the_pid_of_the_first(service: Service) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "api.commands.commandline", "up", "--home", str(service.home), "--port", "0"],
        env={name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert second.returncode == 1
    assert str(service.process.pid) in second.stderr + second.stdout


def test_initial_weights_are_loaded_and_missing_ones_fail_at_once(
    client: Client, service: Service, grower: Grower, tmp_path: Path
) -> None:
    missing = grower.push("anise", "basil", recipe=QUICK | {"initial_weights": "nowhere.safetensors"})["id"]
    final = list(client.events(missing))[-1].data
    assert (final["status"], final["attempt"]) == ("failed", 1)
    assert "nowhere.safetensors" in final["error"]

    first = grower.learn("anise", "basil")
    client.download(grower.name, first["version"] or 0, tmp_path / "version")
    weights = service.home / "weights"
    weights.mkdir(exist_ok=True)
    (tmp_path / "version" / "weights.safetensors").rename(weights / "pretrained.safetensors")
    client.create_model("started", image_size=SIZE, recipe=QUICK | {"epochs": 1, "learning_rate": 1e-9})
    archive = write_zip(tmp_path / "1.zip", ["anise", "basil"])
    client.wait(client.start_increment("started", archive, recipe={"initial_weights": "pretrained.safetensors"})["id"])
    client.download("started", 1, tmp_path / "started")
    old = load_file(weights / "pretrained.safetensors")
    new = load_file(tmp_path / "started" / "weights.safetensors")
    learned = [name for name in old if name.startswith("backbone.") and name.endswith("weight")]
    assert len(learned) > 30
    for name in learned:
        torch.testing.assert_close(new[name], old[name], atol=1e-5, rtol=0)
