"""Several processes of the API on one port, as `python -m api` starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from api.process.embedded import environment, free_port, renewed
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.domain import Scope
from storage.requests import keys
from storage.settings import Settings
from tests.api.http.test_telemetry import value
from tests.api.process.answering import all_answer
from tests.api.worlds import World, eventually, picture

WORKERS = 3


@pytest.fixture(scope="module")
def served(
    settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, "subprocess.Popen[bytes]"]]:
    """The API by three processes, and the parent of them; the last of these tests ends it."""
    settings = renewed(
        settings_for(tmp_path_factory.mktemp("home")), port=free_port("127.0.0.1"), api_workers=WORKERS, drain_seconds=0
    )
    process = subprocess.Popen([sys.executable, "-m", "api"], env={**os.environ, **environment(settings)})
    with ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.terminate)
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=240))
        database = Database(settings.database)
        stack.callback(database.close)
        assert eventually(lambda: all_answer(process, str(http.base_url), count=WORKERS), seconds=240)
        yield World(settings, http, database, open_blobs(settings.blobs)), process


def children(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The processes that answer."""
    return psutil.Process(process.pid).children()


def orphaned(process: "subprocess.Popen[bytes]", everyone: list[psutil.Process]) -> list[psutil.Process]:
    """Kill their parent; who of them is left a minute later, and is ended now."""
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(everyone, timeout=60)
    for one in left:
        one.kill()
    return left


def ready(http: httpx.Client) -> bool:
    """Whether somebody answers, and can."""
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def ask(world: World, name: str, times: int) -> set[int]:
    """Predict so many times, each over a connection of its own so that any process may take it; versions seen."""
    url = f"http://127.0.0.1:{world.settings.port}/v1/models/{name}/predictions"
    return {httpx.post(url, content=picture(1), timeout=240).json()["version"] for _ in range(times)}


def test_all_of_them_answer_notice_promotions_and_are_counted_together(served):
    world, process = served
    name = world.model()
    world.version(name, "cat", "dog")
    assert ask(world, name, 30) == {1}
    assert all_answer(process, str(world.http.base_url), count=WORKERS)
    world.version(name, "emu", "fox")
    assert eventually(lambda: ask(world, name, 20) == {2})
    before = value(world.http, "accrete_minibatch_images_sum")
    ask(world, name, 25)
    assert value(world.http, "accrete_minibatch_images_sum") == before + 25
    assert value(world.http, "accrete_current_version", model=name) == 2
    assert world.http.delete(f"/v1/models/{name}").is_success
    assert eventually(lambda: value(world.http, "accrete_current_version", model=name) == 0)


def test_they_count_a_keys_rate_together(served):
    world, _ = served
    with world.database.write() as connection:
        key = keys.create(connection, name="hasty", scopes=[Scope.PREDICT], model_id=None, rate=0.01)[1]
    url, headers = f"http://127.0.0.1:{world.settings.port}/v1/strategies", {"Authorization": f"Bearer {key}"}
    assert [httpx.get(url, headers=headers, timeout=240).status_code for _ in range(20)] == [200] + [429] * 19


def test_one_that_is_killed_is_started_again_and_the_others_answer_meanwhile(served):
    world, process = served
    name = world.model()
    world.version(name, "cat", "dog")
    before = children(process)
    before[0].kill()
    for _ in range(20):  # a connection that the dead one had accepted is lost, a new one is not
        assert ask(world, name, 1) == {1}
    assert eventually(lambda: len(children(process)) == WORKERS and before[0] not in children(process))
    assert {one.pid for one in before[1:]} < {one.pid for one in children(process)}


def test_asked_to_end_all_of_them_do(served):
    world, process = served
    everyone = [psutil.Process(process.pid), *children(process)]
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 0
    _, alive = psutil.wait_procs(everyone, timeout=240)
    assert not alive
    assert not ready(replace(world).http)


@pytest.mark.parametrize("state", ["ready", "starting"])
def test_a_parent_that_is_killed_takes_all_of_them_with_it(
    settings_for: Callable[..., Settings], tmp_path: Path, state: str
):
    settings = renewed(settings_for(tmp_path), port=free_port("127.0.0.1"), api_workers=WORKERS)
    (folder := tmp_path / "temporary").mkdir()
    variables = {**os.environ, **environment(settings), "TMPDIR": str(folder)}
    process = subprocess.Popen([sys.executable, "-m", "api"], env=variables)
    with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=240) as http:
        started = eventually(lambda: len(children(process)) == WORKERS and (state == "starting" or ready(http)))
        assert orphaned(process, children(process)) == []
        assert started
        assert not ready(http)
        assert list(folder.iterdir()) == []
