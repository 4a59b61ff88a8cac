"""How the API ends: it drains first, finishes what is in flight, and says by its exit code whether all went well."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from api.process.embedded import environment, free_port, renewed
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.settings import Settings
from tests.api.process.answering import all_answer
from tests.api.worlds import World, eventually, picture

TARDY = 240.0  # seconds within which a loaded machine does what takes a moment
Process = subprocess.Popen[bytes]


@pytest.fixture
def start(settings_for: Callable[..., Settings], tmp_path: Path) -> Iterator[Callable[..., tuple[World, Process]]]:
    """Start the API in a process of its own, by a command in front of it where one is given."""
    with ExitStack() as stack:

        def started(*wrapper: str, **values: Any) -> tuple[World, Process]:
            (home := tmp_path / uuid4().hex).mkdir()
            settings = renewed(settings_for(home, **values), port=free_port("127.0.0.1"))
            command = [*wrapper, sys.executable, "-m", "api"]
            process = subprocess.Popen(command, env={**os.environ, **environment(settings)})
            stack.callback(process.wait)
            stack.callback(process.kill)
            http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=TARDY))
            database = Database(settings.database)
            stack.callback(database.close)
            assert eventually(
                lambda: all_answer(process, str(http.base_url), count=settings.api_workers), seconds=TARDY
            )
            return World(settings, http, database, open_blobs(settings.blobs)), process

        yield started


def answers(settings: Settings, path: str) -> int | None:
    """Status of an answer over a new connection; None where none is taken."""
    try:
        return httpx.get(f"http://127.0.0.1:{settings.port}{path}", timeout=TARDY).status_code
    except httpx.TransportError:
        return None


def slow_prediction(world: World, name: str, going_on: threading.Event, rest: threading.Event) -> int:
    """Ask for a prediction whose body is not whole before it is told to be; the answer's status."""

    def body() -> Iterator[bytes]:
        yield picture(1)[:10]
        going_on.set()
        rest.wait(TARDY)
        yield picture(1)[10:]

    url = f"http://127.0.0.1:{world.settings.port}/v1/models/{name}/predictions"
    return httpx.post(url, content=body(), timeout=TARDY).status_code


def draining(world: World, name: str) -> bool:
    """Look at a service that was asked to end: it is not ready, and answers; False where it answers no more."""
    try:
        ready = httpx.get(f"{world.http.base_url}/readyz", timeout=TARDY)
        alive = httpx.get(f"{world.http.base_url}/livez", timeout=TARDY)
        answer = httpx.post(f"{world.http.base_url}/v1/models/{name}/predictions", content=picture(1), timeout=TARDY)
    except httpx.TransportError:
        return False
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert ready.json()["checks"]["service"] == "shutting down"
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_asked_to_end_it_is_not_ready_at_once_answers_for_a_while_and_finishes_what_it_began(start, workers):
    """In a drain of three seconds; where the machine is too slow to ask so much in so short a time, in a longer one."""
    assert any(drained(start, workers, seconds) for seconds in (3, 20, 120))


def drained(start: Callable[..., tuple[World, Process]], workers: int, seconds: int) -> bool:
    """Whether what has to be asked while a service drains could be asked in time; all that is promised of it."""
    world, process = start(api_workers=workers, drain_seconds=seconds)
    name = world.model()
    world.version(name, "cat", "dog")
    assert answers(world.settings, "/v1/models") == 200
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    going_on, rest = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(slow_prediction, world, name, going_on, rest)
        assert going_on.wait(TARDY)
        process.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        assert eventually(lambda: answers(world.settings, "/readyz") != 200)
        was_in_time = draining(world, name)
        assert process.poll() is None
        assert eventually(lambda: answers(world.settings, "/livez") is None, seconds=seconds + TARDY)
        assert time.monotonic() - asked_at > seconds - 1
        assert process.poll() is None  # one request is still in flight
        rest.set()
        assert in_flight.result() == 200
    assert process.wait(TARDY) == 0
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)
    return was_in_time


@pytest.mark.parametrize(
    ("workers", "signals"),
    [
        (1, [signal.SIGINT]),
        (2, [signal.SIGINT]),
        (1, [signal.SIGTERM, signal.SIGTERM]),
        (2, [signal.SIGTERM, signal.SIGINT]),
    ],
    ids=["SIGINT", "SIGINT, several processes", "twice", "twice, several processes"],
)
def test_ctrl_c_and_a_second_signal_wait_for_no_drain(start, workers, signals):
    world, process = start(api_workers=workers, drain_seconds=1000)
    process.send_signal(signals[0])
    for number in signals[1:]:
        assert eventually(lambda: answers(world.settings, "/readyz") == 503, seconds=TARDY)
        process.send_signal(number)
    assert process.wait(TARDY) == 0


def test_a_second_signal_waits_for_no_request(start):
    world, process = start(drain_seconds=0, deadline_seconds=1000)
    name = world.model()
    world.version(name, "cat", "dog")
    going_on, rest = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(slow_prediction, world, name, going_on, rest)
        assert going_on.wait(TARDY)
        process.send_signal(signal.SIGTERM)
        assert eventually(lambda: answers(world.settings, "/livez") is None, seconds=TARDY)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.wait(TARDY)
        rest.set()
        assert in_flight.exception() is not None or in_flight.result() >= 500


def test_event_streams_go_on_while_it_drains_and_end_with_it(start):
    """In a drain of two seconds, or in a longer one, as above."""
    assert any(streamed(start, seconds) for seconds in (2, 20, 120))


def streamed(start: Callable[..., tuple[World, Process]], seconds: int) -> bool:
    """Whether what happened early in a drain was told; what happened late in it need not have been."""
    world, process = start(drain_seconds=seconds)
    asked = world.increment(world.model(), "cat", "dog")
    with world.http.stream("GET", f"/v1/increments/{asked['id']}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("event: status")
        process.send_signal(signal.SIGTERM)
        asked_at = time.monotonic()
        assert eventually(lambda: answers(world.settings, "/readyz") != 200)
        claim = world.claim(asked["id"])
        world.step(claim, "stage", stage="training", attempt=1)
        happened_after = time.monotonic() - asked_at
        told = '"stage":"training"' in "".join(lines).replace(" ", "")
    assert process.wait(TARDY) == 0
    assert told or happened_after > seconds / 2
    return told


# Exit codes


def test_a_start_that_fails_has_an_exit_code_of_its_own(settings_for, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = renewed(settings_for(tmp_path), port=taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "api"], env={**os.environ, **environment(settings)}, timeout=TARDY, check=False
        )
    assert ended.returncode not in {0, -signal.SIGTERM}


def test_one_of_several_processes_that_does_not_end_well_is_told_by_the_exit_code(start):
    world, process = start(api_workers=2, drain_seconds=1000)
    first, second = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    assert eventually(lambda: answers(world.settings, "/readyz") == 503)
    first.kill()
    second.send_signal(signal.SIGTERM)
    second.send_signal(signal.SIGTERM)
    assert process.wait(TARDY) == signal.SIGKILL


# What is ignored from the start


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal, as the kernel has it."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_what_nohup_ignores_stays_ignored_in_every_process(start):
    _, process = start("nohup", api_workers=2, drain_seconds=0)
    everyone = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    assert all(ignores(pid, signal.SIGHUP) for pid in everyone)
    assert not any(ignores(pid, signal.SIGTERM) for pid in everyone)
    process.send_signal(signal.SIGTERM)
    assert process.wait(TARDY) == 0


def test_a_job_in_the_background_is_not_ended_by_ctrl_c(start):
    wrapper = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    world, process = start(*wrapper, api_workers=2, drain_seconds=0)
    everyone = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    assert all(ignores(pid, signal.SIGINT) for pid in everyone)
    for pid in everyone:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    assert answers(world.settings, "/readyz") == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(TARDY) == 0
