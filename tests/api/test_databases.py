"""What the routes do is the same on either database, also with texts and numbers that one of them cannot keep."""

import time

import pytest

from tests.api.http.test_telemetry import value
from tests.api.worlds import eventually, picture, running

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def either(settings_for, database_url, tmp_path_factory):
    """A running service, once on SQLite, once on PostgreSQL."""
    with running(settings_for(tmp_path_factory.mktemp("home"), database_url=database_url)) as world:
        yield world


def test_a_model_grows_is_promoted_and_predicts(either):
    http, name = either.http, either.model()
    either.version(name, "cat", "dog")
    answer = http.post(f"/v1/models/{name}/predictions", content=picture(1)).json()
    assert answer["version"] == 1
    either.version(name, "emu", "fox")
    promoted = time.monotonic()
    assert eventually(lambda: http.post(f"/v1/models/{name}/predictions", content=picture(1)).json()["version"] == 2)
    switched = time.monotonic()
    assert eventually(lambda: value(http, "accrete_swap_seconds_count") == 1)
    # Noticed, within a second where nobody else wants the processor; loading took the rest.
    assert switched - promoted - value(http, "accrete_swap_seconds_sum") < 20
    assert http.put(f"/v1/models/{name}/current", json={"version": 1}).json()["previous"] == 2
    assert http.get(f"/v1/predictions/{answer['id']}").json()["predictions"] == answer["predictions"]
    assert http.delete(f"/v1/models/{name}/versions/2").status_code == 204
    assert http.delete(f"/v1/models/{name}").status_code == 204
    assert http.get("/v1/models").json()["items"] == []
    assert http.get("/readyz").json()["checks"] == {"database": "ok", "broker": "ok"}


@pytest.mark.parametrize("text", ["%00", "a%00b", "%ff", "%ed%a0%80", "%F4%8F%BF%BF"])
def test_no_text_in_a_path_or_query_is_a_fault_of_the_service(either, text):
    name = either.model()
    for path in (
        f"models/{text}",
        f"models/{text}/versions",
        f"models/{text}/current",
        f"models/{name}/images/{text}/prediction",
        f"models/{name}/versions/1/files/{text}",
        f"models?cursor={text}",
        f"models/{name}/increments?cursor={text}",
        f"batches/{text}",
        f"images/{text}",
        f"increments/{text}",
        f"increments/{text}/events",
        f"predictions/{text}",
    ):
        answer = either.http.get(f"/v1/{path}")
        assert answer.status_code in {404, 422}, path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "\\uffff", "x" * 300])
def test_no_text_in_a_body_is_a_fault_of_the_service(either, text):
    name = either.model()
    for method, path, body in (
        ("POST", "models", f'{{"name": "{text}"}}'),
        ("POST", "models", f'{{"name": "m", "network": "{text}"}}'),
        ("POST", "models", f'{{"name": "m", "strategy": "{text}"}}'),
        ("POST", "models", f'{{"name": "m", "recipe": {{"initial_weights": "{text}"}}}}'),
        ("POST", f"models/{name}/increments", f'{{"batch_id": "{text}"}}'),
        ("PATCH", f"models/{name}", f'{{"strategy": "{text}"}}'),
    ):
        answer = either.http.request(method, f"/v1/{path}", content=body, headers=JSON)
        assert answer.status_code in {404, 422}, (path, body)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("number", [-1, 2**31, 2**63, 10**30])
def test_no_number_is_a_fault_of_the_service(either, number):
    name = either.model()
    either.version(name, "cat", "dog")
    for method, path, body in (
        ("GET", f"models/{name}/versions/{number}", None),
        ("GET", f"models/{name}/versions/{number}/metrics", None),
        ("GET", f"models/{name}/metrics?version={number}", None),
        ("DELETE", f"models/{name}/versions/{number}", None),
        ("POST", f"models/{name}/predictions?version={number}", picture(1)),
        ("PUT", f"models/{name}/current", f'{{"version": {number}}}'),
        ("POST", "models", f'{{"name": "m", "image_size": {number}}}'),
        ("POST", "models", f'{{"name": "m", "memory": {{"total": {number}}}}}'),
        ("POST", "models", f'{{"name": "m", "recipe": {{"seed": {number}00}}}}'),
    ):
        answer = either.http.request(method, f"/v1/{path}", content=body, headers=JSON if isinstance(body, str) else {})
        assert answer.status_code in {404, 422}, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
