"""HEAD wherever GET is, and conditions on ETags, as RFC 9110 wants them."""

import socket

import pytest

from tests.api.openapi.test_document import operations
from tests.api.worlds import picture, problem, running

SAME = ("content-type", "content-length", "etag", "cache-control", "content-security-policy", "allow", "location")


@pytest.fixture(scope="module")
def places(shared_world):
    """A path for each route of GET, with something behind it."""
    http = shared_world.http
    name = shared_world.model(keep_predictions="all")
    batch = http.post(f"/v1/models/{name}/batches").json()["id"]
    sent = http.post(f"/v1/batches/{batch}/images", params={"label": "a"}, content=picture(1))
    image = sent.json()["images"][0]["id"]
    shared_world.version(name, "a", "b")
    increment = http.get(f"/v1/models/{name}/increments").json()["items"][0]["id"]
    predicted = http.post(f"/v1/models/{name}/predictions?record=durable", content=picture(1)).json()["id"]
    values = {
        "name": name,
        "batch_id": batch,
        "image_id": image,
        "increment_id": increment,
        "prediction_id": predicted,
        "position": "0",
        "number": "1",
        "file": "version.json",
        "kind": "not-found",
    }
    described = http.get("/openapi.json").json()
    paths = [path.format(**values) for method, path, _ in operations(described) if method == "get"]
    return [*paths, "/docs", "/openapi.json"]


def test_head_is_answered_as_get_is_without_the_body(http, places):
    assert len(places) > 25
    for path in places:
        if path == "/metrics":  # which counts what was asked
            assert http.head(path).status_code == 200
            continue
        got, asked = http.get(path), http.head(path)
        assert (asked.status_code, asked.content) == (got.status_code, b""), path
        for name in SAME:
            if not (name == "content-length" and name not in got.headers):
                assert asked.headers.get(name) == got.headers.get(name), (path, name)


def test_head_of_what_is_not_there_and_of_what_cannot_be_got(http):
    assert http.head("/v1/models/nobody").status_code == 404
    assert http.head("/nothing").status_code == 404
    answer = http.head("/v2/models/nobody/infer")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_head_of_an_event_stream_does_not_wait_for_its_events(world):
    asked = world.increment(world.model(), "a", "b")
    answer = world.http.head(f"/v1/increments/{asked['id']}/events", timeout=60)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert world.http.get(f"/v1/increments/{asked['id']}").json()["status"] == "queued"


def test_a_connection_goes_on_after_head(world):
    """Nothing of a body, which would be read as the next answer."""
    host, port = world.http.base_url.host, world.http.base_url.port
    with socket.create_connection((host, port), timeout=60) as connection:
        for method in ("HEAD", "GET"):
            connection.sendall(f"{method} /v1/strategies HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            assert head.startswith(b"HTTP/1.1 200"), head
            assert b"content-length: " in head.lower()


def test_head_needs_a_key_as_get_does(settings_for, tmp_path):
    with running(settings_for(tmp_path, keys="required")) as world:
        assert world.http.head("/v1/models").status_code == 401
        assert world.http.head("/livez").status_code == 200


@pytest.fixture(scope="module")
def tagged(shared_world, places):
    """Every path whose answer has an ETag, with it."""
    found = {path: shared_world.http.get(path).headers.get("etag") for path in places}
    return {path: etag for path, etag in found.items() if etag is not None}


def test_what_can_be_kept_has_an_etag(tagged):
    assert {path.rpartition("/")[2] for path in tagged} >= {"current", "version.json", "metrics.png"}
    assert any(path.startswith("/v1/images/") for path in tagged)
    assert all(etag[0] == etag[-1] == '"' for etag in tagged.values())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("header", ["{}", "W/{}", '"other", {}', '"other",W/{} , "more"', "*"])
def test_what_a_client_has_already_is_not_sent_again(http, tagged, method, header):
    for path, etag in tagged.items():
        answer = http.request(method, path, headers={"If-None-Match": header.format(etag)})
        assert (answer.status_code, answer.content) == (304, b""), path
        assert answer.headers["etag"] == etag
        assert "content-type" not in answer.headers


@pytest.mark.parametrize("header", ['"other"', 'W/"other", "one more"', "nonsense", ""])
def test_what_a_client_has_not_is_sent(http, tagged, header):
    for path in tagged:
        answer = http.get(path, headers={"If-None-Match": header})
        assert answer.status_code == 200, path
        assert answer.content


def test_if_match_on_get_compares_strongly(http, tagged):
    for path, etag in tagged.items():
        for header in (etag, f'"other", {etag}', "*"):
            assert http.get(path, headers={"If-Match": header}).status_code == 200
        for header in ('"other"', f"W/{etag}", "nonsense"):
            body = problem(http.get(path, headers={"If-Match": header}), 412, "precondition-failed")
            assert etag in body["detail"]


def test_a_condition_says_nothing_of_what_failed(http):
    answer = http.get("/v1/models/nobody/current", headers={"If-None-Match": "*"})
    assert problem(answer, 404, "model-not-found")
