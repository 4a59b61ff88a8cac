"""Predictions that go around FastAPI's solving of parameters answer as those that do not."""

import itertools

import pytest

from api.schemas.predictions import DEADLINE_HEADER
from tests.api.http.test_telemetry import value
from tests.api.worlds import picture, running

PATHS = ("/v1/models/{}/predictions", "/v2/models/{}/infer")
LONG_WAY = {DEADLINE_HEADER: "20"}  # a parameter, if one that changes nothing


@pytest.fixture(scope="module")
def model(shared_world):
    """A model of five classes in one version."""
    name = shared_world.model()
    shared_world.version(name, "cat", "dog", "emu", "fox", "gnu")
    return name


def without_id(answer):
    """Status, media type, and what was said but for the id, which is another one each time."""
    said = answer.json()
    for name in ("id", "parameters"):  # under /v1 and /v2
        said.pop(name, None)
    return answer.status_code, answer.headers["content-type"], said


def in_tensors(seed):
    """A request under /v2."""
    pixels = [float(one % 7) / 7 for one in range(seed, seed + 3 * 8 * 8)]
    return {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": pixels}]}


BODIES = [
    {"content": picture(1)},
    {"content": picture(2), "headers": {"Content-Type": "image/png"}},
    {"json": in_tensors(3)},
    {"content": b""},
    {"content": b"no image"},
    {"content": b"{", "headers": {"Content-Type": "application/json"}},
    {"files": [("images", ("a.png", picture(4), "image/png")), ("images", ("b.png", picture(5), "image/png"))]},
]


@pytest.mark.parametrize(("path", "body"), list(itertools.product(PATHS, BODIES)), ids=str)
@pytest.mark.parametrize("known", [True, False])
def test_both_ways_say_the_same(http, model, path, body, known):
    url = path.format(model if known else "unknown")
    long = body | {"headers": body.get("headers", {}) | LONG_WAY}
    assert without_id(http.post(url, **body)) == without_id(http.post(url, **long))


@pytest.mark.parametrize("path", PATHS)
def test_both_ways_are_counted_under_the_same_route(http, model, path):
    route = path.format("{name}")
    body = {"content": picture(1)} if path == PATHS[0] else {"json": in_tensors(1)}

    def counted():
        return value(http, "accrete_requests_total", method="POST", route=route, status="200")

    http.post(path.format(model), **body)
    before = counted()
    http.post(path.format(model), **body)
    http.post(path.format(model), **body, headers=LONG_WAY)
    assert counted() == before + 2


@pytest.mark.parametrize("path", PATHS)
def test_both_ways_ask_for_a_key(settings_for, tmp_path, path):
    with running(settings_for(tmp_path, keys="required")) as world:
        for headers in ({}, LONG_WAY, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
            answer = world.http.post(path.format("any"), content=picture(1), headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_other_methods_go_the_usual_way(http, model, path, method):
    answer = http.request(method, path.format(model))
    assert answer.status_code == (200 if path == PATHS[0] and method in {"GET", "HEAD"} else 405)
