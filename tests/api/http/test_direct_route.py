"""Routes without FastAPI's solving of dependencies: the same answers with parameters and without, the same refusals."""

import itertools

import pytest
from fastapi import APIRouter, Depends

from api.http.direct_route import Direct
from api.http.rights import needs
from api.schemas.predictions import DEADLINE_HEADER
from storage.domain import Scope
from tests.api.http.test_telemetry import value
from tests.api.worlds import picture, running

PATHS = ("/v1/models/{}/predictions", "/v2/models/{}/infer")
SAID = {DEADLINE_HEADER: "20"}  # a parameter, if one that changes nothing


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
def test_a_parameter_that_changes_nothing_changes_nothing(http, model, path, body, known):
    url = path.format(model if known else "unknown")
    long = body | {"headers": body.get("headers", {}) | SAID}
    assert without_id(http.post(url, **body)) == without_id(http.post(url, **long))


@pytest.mark.parametrize("path", PATHS)
def test_requests_are_counted_under_the_route_with_parameters_and_without(http, model, path):
    route = path.format("{name}")
    body = {"content": picture(1)} if path == PATHS[0] else {"json": in_tensors(1)}

    def counted():
        return value(http, "accrete_requests_total", method="POST", route=route, status="200")

    http.post(path.format(model), **body)
    before = counted()
    http.post(path.format(model), **body)
    http.post(path.format(model), **body, headers=SAID)
    assert counted() == before + 2


@pytest.mark.parametrize("path", PATHS)
def test_a_key_is_asked_for(settings_for, tmp_path, path):
    with running(settings_for(tmp_path, keys="required")) as world:
        for headers in ({}, SAID, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
            answer = world.http.post(path.format("any"), content=picture(1), headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_other_methods_find_what_is_there_for_them(http, model, path, method):
    answer = http.request(method, path.format(model))
    assert answer.status_code == (200 if path == PATHS[0] and method in {"GET", "HEAD"} else 405)


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?top_k=0", {}, "top_k"),
        ("?top_k=many", {}, "top_k"),
        ("?version=0", {}, "version"),
        ("?record=soon", {}, "record"),
        ("?topk=1", {}, "topk"),
        ("?top_k=1&top_k=2", {}, "top_k"),
        ("", {DEADLINE_HEADER: "0"}, DEADLINE_HEADER.lower()),
        ("", {DEADLINE_HEADER: "soon"}, DEADLINE_HEADER.lower()),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(http, model, query, headers, field):
    answer = http.post(PATHS[0].format(model) + query, content=picture(1), headers=headers)
    assert answer.status_code == 422
    assert field in answer.text.lower()


def test_numbers_in_a_path_are_checked(http, model):
    said = http.post(f"/v2/models/{model}/versions/1/infer", json=in_tensors(2))
    assert (said.status_code, said.json()["model_version"]) == (200, "1")
    assert http.post(f"/v2/models/{model}/versions/first/infer", json=in_tensors(2)).status_code == 400


def test_an_endpoint_that_asks_for_more_cannot_have_such_a_route():
    async def endpoint(request, service, more=Depends(lambda: 1)):
        return None

    router = APIRouter(route_class=Direct)
    with pytest.raises(TypeError, match="more"):
        router.add_api_route("/x", endpoint, dependencies=[needs(Scope.PREDICT)])
