"""Loading: slow stores, deadlines, many who ask at once, and what stays in memory."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.serving.costs import Costs
from api.serving.execution import Execution
from api.serving.execution.sessions import Session
from api.serving.minibatches import Batcher
from storage.blobs.directory import DirectoryBlobs
from storage.history import models
from tests.api.http.test_telemetry import value
from tests.api.worlds import World, eventually, picture, problem, running

WAITING = 60  # requests: more than there are threads for plain functions


class SlowBlobs(DirectoryBlobs):
    """A store some of whose blobs are slow to come, as long as they are held up; it counts what is fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gates: dict[str, threading.Event] = {}
        self.fetched: Counter[str] = Counter()

    def fetch(self, sha256: str, target: Path) -> None:
        self.fetched[sha256] += 1
        if (gate := self.gates.get(sha256)) is not None:
            assert gate.wait(60)
        super().fetch(sha256, target)


@pytest.fixture
def slow(settings_for, tmp_path, monkeypatch) -> SlowBlobs:
    """The store of the service of this test."""
    store = SlowBlobs(tmp_path / "blobs")
    monkeypatch.setattr("api.app.open_blobs", lambda _: store)
    return store


@pytest.fixture
def own(settings_for, tmp_path, slow) -> Iterator[World]:
    """A service of this test's own, with room for two versions beside those in service."""
    with running(settings_for(tmp_path, loaded_versions=2, deadline_seconds=600)) as world:
        yield world
        for gate in slow.gates.values():
            gate.set()


def weights(world, name, number):
    """Digest of a version's weights."""
    return world.http.get(f"/v1/models/{name}/versions/{number}").json()["files"]["network.onnx"]["sha256"]


@contextmanager
def held_up(slow, digest):
    """Let nobody have a blob meanwhile."""
    gate = slow.gates[digest] = threading.Event()
    try:
        yield
    finally:
        gate.set()


def predict(world, name, *, seconds=None, **query):
    """Ask for a prediction, perhaps with a deadline."""
    headers = {} if seconds is None else {"Accrete-Deadline-Seconds": str(seconds)}
    path = f"/v1/models/{name}/predictions"
    return world.http.post(path, params=query, content=picture(1), headers=headers, timeout=60)


def promote(world, name, number):
    """Put a version into service; its number, as the answer has it."""
    return world.http.put(f"/v1/models/{name}/current", json={"version": number}, timeout=60).json()["version"]


def grown(world, *batches, promote="auto"):
    """A model with a version for each batch of classes."""
    name = world.model()
    for labels in batches:
        world.version(name, *labels, promote=promote)
    return name


# The deadline


@pytest.mark.parametrize(
    "path", ["/v1/models/{}/predictions", "/v1/models/{}/predictions?top_k=1", "/v2/models/{}/infer"]
)
def test_a_load_that_takes_longer_is_504_and_goes_on(own, slow, path):
    name = grown(own, ["cat", "dog"])
    digest = weights(own, name, 1)
    body = (
        {"json": {"inputs": [{"name": "image", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0.5] * 192}]}}
        if path.startswith("/v2")
        else {"content": picture(1)}
    )
    with held_up(slow, digest):
        answer = own.http.post(path.format(name), headers={"Accrete-Deadline-Seconds": "0.3"}, **body)
        assert answer.status_code == 504
        assert "deadline" in answer.text
    assert predict(own, name).status_code == 200
    assert slow.fetched[digest] == 1


def test_the_services_own_deadline_counts_loading_too(settings_for, tmp_path, slow):
    with running(settings_for(tmp_path, deadline_seconds=0.5)) as own:
        name = grown(own, ["cat", "dog"])
        with held_up(slow, weights(own, name, 1)):
            problem(predict(own, name), 504, "deadline-exceeded")


def test_a_body_that_comes_slowly_does_not_stop_the_clock(own):
    name = grown(own, ["cat", "dog"])
    assert predict(own, name).status_code == 200
    stopped = threading.Event()

    def body() -> Iterator[bytes]:
        yield picture(1)[:10]
        stopped.wait(60)

    try:
        path, headers = f"/v1/models/{name}/predictions", {"Accrete-Deadline-Seconds": "0.5"}
        began = time.monotonic()
        with own.http.stream("POST", path, content=body(), headers=headers) as answer:
            assert answer.status_code == 504
    finally:
        stopped.set()
    assert time.monotonic() - began > 0.4


# Beside each other


def test_one_slow_load_stops_nobody_but_those_who_wait_for_it(own, slow):
    stuck, other = grown(own, ["cat", "dog"]), grown(own, ["emu", "fox"], ["gnu", "hen"])
    digest = weights(own, stuck, 1)
    with ThreadPoolExecutor(WAITING) as pool:
        with held_up(slow, digest):
            waiting = [pool.submit(predict, own, stuck) for _ in range(WAITING)]
            assert eventually(lambda: slow.fetched[digest] == 1)
            assert predict(own, other).json()["version"] == 2
            assert predict(own, other, version=1).json()["version"] == 1
            assert promote(own, other, 1) == 1
            assert predict(own, other).json()["version"] == 1
            assert own.http.get("/v1/models").status_code == 200
            assert not any(one.done() for one in waiting)
        assert {one.result().status_code for one in waiting} == {200}
    assert slow.fetched[digest] == 1


def test_a_promotion_that_loads_slowly_leaves_the_old_version_answering(own, slow):
    name, other = grown(own, ["cat", "dog"], ["emu", "fox"]), grown(own, ["gnu", "hen"], ["ibis", "jay"])
    assert promote(own, name, 1) == promote(own, other, 1) == 1
    with ThreadPoolExecutor(1) as pool:
        with held_up(slow, weights(own, name, 2)):
            slowly = pool.submit(promote, own, name, 2)
            assert eventually(lambda: slow.fetched[weights(own, name, 2)] > 0)
            assert predict(own, name).json()["version"] == 1
            assert own.http.get(f"/v1/models/{name}/current").json()["version"] == 1
            assert promote(own, other, 2) == 2
            assert not slowly.done()
        assert slowly.result() == 2
    assert predict(own, name).json()["version"] == 2


def test_a_version_is_loaded_once_whoever_asks_for_it(own, slow):
    name = grown(own, ["cat", "dog"])
    digest = weights(own, name, 1)
    with ThreadPoolExecutor(16) as pool:
        with held_up(slow, digest):
            asked = [pool.submit(predict, own, name) for _ in range(5)]
            asked += [pool.submit(predict, own, name, version=1) for _ in range(5)]
            assert eventually(lambda: slow.fetched[digest] > 0)
        assert all(one.result() for one in asked)
    assert slow.fetched[digest] == 1


def test_a_version_that_does_not_load_is_not_tried_for_every_request(own, slow):
    name = own.model()
    asked = own.increment(name, "cat", "dog")
    own.publish(own.claim(asked["id"]), ["cat", "dog"], rewrite={"format": 99})
    digest = weights(own, name, 1)
    began = time.monotonic()
    for _ in range(20):
        problem(predict(own, name), 503, "version-unloadable")
        problem(predict(own, name, version=1), 503, "version-unloadable")
    assert slow.fetched[digest] <= 1 + (time.monotonic() - began)


# Promotions


def test_a_promotion_is_answered_once_it_answers(settings_for, tmp_path):
    with running(settings_for(tmp_path, watch_seconds=60)) as own:
        name = grown(own, ["cat", "dog"], ["emu", "fox"])
        assert predict(own, name).json()["version"] == 2
        for number in (1, 2, 1, 2):
            assert promote(own, name, number) == number
            assert predict(own, name).json()["version"] == number


def test_a_promotion_is_not_undone_by_a_look_that_began_before_it(own, slow):
    name = grown(own, ["cat", "dog"], ["emu", "fox"], ["gnu", "hen"])
    assert promote(own, name, 1) == 1
    assert predict(own, name).json()["version"] == 1
    with held_up(slow, weights(own, name, 2)):
        before = slow.fetched[weights(own, name, 2)]
        with own.database.write() as connection:  # by another process
            models.promote(connection, name, version=2)
        assert eventually(lambda: slow.fetched[weights(own, name, 2)] > before)
        assert promote(own, name, 3) == 3
        assert predict(own, name).json()["version"] == 3
    assert predict(own, name, version=2).json()["version"] == 2  # what the look had begun to load is there
    seen = set()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        seen.add(predict(own, name).json()["version"])
    assert seen == {3}


# Memory


def test_versions_beyond_those_that_may_be_loaded_go_least_recently_asked_for_first(own, slow):
    name = grown(own, *([f"{n} a", f"{n} b"] for n in range(4)))
    digests = {number: weights(own, name, number) for number in range(1, 5)}
    assert predict(own, name).json()["version"] == 4

    def fetches(number):
        before = slow.fetched[digests[number]]
        assert predict(own, name, version=number).json()["version"] == number
        return slow.fetched[digests[number]] - before

    assert [fetches(number) for number in (1, 2, 1, 2)] == [1, 1, 0, 0]
    assert fetches(1) == 0
    assert fetches(3) == 1  # 2 goes
    assert [fetches(number) for number in (3, 1, 2)] == [0, 0, 1]
    assert [fetches(number) for number in (4, 4)] == [0, 0]


def test_a_load_that_fails_after_a_later_promotion_is_no_fault_of_the_version_in_service(own, slow):
    name = grown(own, ["cat", "dog"])
    assert predict(own, name).json()["version"] == 1
    claim = own.claim(own.increment(name, "emu", "fox", promote="manual")["id"])
    assert own.publish(claim, ["emu", "fox"], rewrite={"format": 99}) == 2
    manifest = own.http.get(f"/v1/models/{name}/versions/2").json()["files"]["version.json"]["sha256"]
    with held_up(slow, manifest):
        with own.database.write() as connection:
            models.set_current(connection, models.get(connection, name), 2)
        assert eventually(lambda: slow.fetched[manifest] > 0)
        assert promote(own, name, 1) == 1
    assert predict(own, name, version=2).status_code == 503
    assert value(own.http, "accrete_swap_failures_total", model=name) == 0
    assert own.http.get("/readyz").json()["status"] == "ok"


def test_a_load_that_is_disturbed_gives_no_wrong_costs(own, monkeypatch):
    """A minibatch of eight images that took 0.4 s too long would make an image cost 57 ms."""
    name = grown(own, ["red", "green"], ["blue"], promote="manual")
    real, calls, found = Session.probabilities, iter(range(100)), []

    def disturbed(session, images):
        if next(calls) == 1:
            time.sleep(0.4)
        return real(session, images)

    def noting(name: str, executions: tuple[Execution, ...], costs: Costs) -> Batcher:
        found.append(costs.line)
        return Batcher(name, executions, costs)

    monkeypatch.setattr(Session, "probabilities", disturbed)
    monkeypatch.setattr("api.serving.loading.Batcher", noting)
    assert predict(own, name, version=2).status_code == 200
    assert max(found[0] or (1.0,)) < 0.02
