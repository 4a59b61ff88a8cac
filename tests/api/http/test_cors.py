"""Web pages that call the service from a browser."""

import httpx
import pytest

from api.http.cors import EXPOSED
from storage.domain import Scope
from storage.requests import keys
from tests.api.worlds import problem, running

TOOL = "https://tool.example.org"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, if-match"}


@pytest.fixture(scope="module")
def guarded(settings_for, tmp_path_factory):
    """A service with keys that a page of `TOOL`, and one of another place, may call."""
    home = tmp_path_factory.mktemp("browsers")
    origins = f"{TOOL}, http://localhost:5173/"
    with running(settings_for(home, keys="required", cors_origins=origins)) as world:
        with world.database.write() as connection:
            secret = keys.create(connection, name="tool", scopes={Scope.ADMIN})[1]
        world.http.headers["Authorization"] = f"Bearer {secret}"
        yield world


@pytest.mark.parametrize("origin", [TOOL, "http://localhost:5173"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/models/plants/predictions", "/v2/models/plants/infer", "/readyz"])
def test_a_preflight_brings_no_key_and_is_answered(guarded, origin, method, path):
    asked = {"Origin": origin, **PREFLIGHT, "Access-Control-Request-Method": method}
    answer = httpx.options(f"{guarded.http.base_url}{path}", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert method in answer.headers["access-control-allow-methods"]
    assert {"authorization", "if-match"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"]


def test_a_page_reads_answers_and_what_is_beside_them(guarded):
    answer = guarded.http.post("/v1/models", json={"name": "plants"}, headers={"Origin": TOOL})
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == TOOL
    assert "Origin" in answer.headers["vary"]
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Location", "ETag", "Retry-After", "X-Request-ID"} <= set(exposed) == set(EXPOSED)


def test_a_page_reads_errors_too(guarded):
    for path, key, status in (("/v1/models/nobody", None, 404), ("/v1/models", "wrong", 401)):
        headers = {"Origin": TOOL} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        answer = guarded.http.get(path, headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, TOOL)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://tool.example.org", "https://tool.example.org.evil", "null"]
)
def test_other_pages_are_told_nothing(guarded, origin):
    answer = httpx.options(f"{guarded.http.base_url}/v1/models", headers={"Origin": origin, **PREFLIGHT})
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in guarded.http.get("/v1/models", headers={"Origin": origin}).headers


def test_no_page_may_call_unless_a_setting_says_so(world):
    answer = world.http.options("/v1/models", headers={"Origin": TOOL, **PREFLIGHT})
    problem(answer, 405, "method-not-allowed")
    assert "access-control-allow-origin" not in world.http.get("/livez", headers={"Origin": TOOL}).headers


def test_every_page_may_call_where_all_are_named(settings_for, tmp_path):
    with running(settings_for(tmp_path, keys="required", cors_origins="*")) as world:
        answer = world.http.options("/v1/models", headers={"Origin": "https://any.example", **PREFLIGHT})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert world.http.get("/v1/models", headers={"Origin": "https://any.example"}).status_code == 401
