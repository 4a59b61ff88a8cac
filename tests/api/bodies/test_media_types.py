"""A body that is called something its route does not take is 415, and told what would be taken."""

import json

import pytest

from tests.api.worlds import class_zip, picture, problem, running

FORM = "application/x-www-form-urlencoded"
VALID = {"POST": {"name": "never-made"}, "PATCH": {"retention": "all"}, "PUT": {"version": 1}}


@pytest.mark.parametrize(
    "kind", ["text/plain", FORM, "application/zip", "multipart/form-data; boundary=x", "nonsense", None]
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/models"), ("PATCH", "/v1/models/{}"), ("PUT", "/v1/models/{}/current")]
)
def test_json_has_to_be_called_so(http, world, method, path, kind):
    name = world.model()
    headers = {} if kind is None else {"Content-Type": kind}
    answer = http.request(method, path.format(name), content=json.dumps(VALID[method]).encode(), headers=headers)
    body = problem(answer, 415, "media-type-unsupported")
    assert body["accepted"] == ["application/json"]
    assert "application/json" in body["detail"]
    assert http.get("/v1/models/never-made").status_code == 404


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"])
def test_json_that_is_called_so_is_taken(http, world, kind):
    path = f"/v1/models/{world.model()}"
    assert http.patch(path, content=b'{"retention": "all"}', headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", FORM, "image/png", "video/mp4", "nonsense"])
@pytest.mark.parametrize("path", ["increments", "batches"])
def test_an_archive_that_is_called_something_else_is_refused(http, world, path, kind):
    name = world.model()
    answer = http.post(f"/v1/models/{name}/{path}", content=class_zip("a", "b"), headers={"Content-Type": kind})
    detail = problem(answer, 415, "media-type-unsupported")["detail"]
    assert "application/zip" in detail
    assert "application/octet-stream" in detail
    assert ("curl -d and --data-binary" in detail) is (kind == FORM)
    assert http.get(f"/v1/models/{name}/increments").json()["items"] == []
    assert world.scratch == []


@pytest.mark.parametrize("kind", ["text/plain", FORM, "application/zip", "nonsense"])
@pytest.mark.parametrize("query", ["", "?top_k=2"])  # the short way, and FastAPI's
def test_an_image_that_is_called_something_else_is_refused(http, world, kind, query):
    path = f"/v1/models/{world.model()}/predictions{query}"
    answer = http.post(path, content=picture(1), headers={"Content-Type": kind})
    assert "image/*" in problem(answer, 415, "media-type-unsupported")["detail"]


def test_the_protocol_s_refusal_is_in_its_own_form(http):
    answer = http.post("/v2/models/nobody/infer", content=b"x=1", headers={"Content-Type": FORM})
    assert answer.status_code == 415
    assert "application/octet-stream" in answer.json()["error"]


def test_the_key_is_asked_for_first(settings_for, tmp_path):
    with running(settings_for(tmp_path, keys="required")) as world:
        answer = world.http.post("/v1/models", content=b"x", headers={"Content-Type": "text/plain"})
        problem(answer, 401, "unauthenticated")
