"""What is decided before a body is read: the key, the query, and whether the body may come at all."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import httpx
import pytest

from api.app import GUARDED
from api.bodies.json_bodies import MAX_VALUES
from api.http.guarded_route import Guarded
from api.routes import inference
from storage.domain import Scope
from storage.requests import keys
from storage.settings import Settings
from tests.api.http.test_access import PATHS, asked, refusal
from tests.api.scopes import SCOPES
from tests.api.worlds import World, class_zip, picture, problem, running

PREDICTIONS = "POST /v1/models/{name}/predictions"
METRICS = "GET /metrics"


@pytest.fixture(scope="module")
def guarded(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service that asks for keys."""
    with running(settings_for(tmp_path_factory.mktemp("guarded"), keys="required")) as started:
        yield started


@contextmanager
def connected(http: httpx.Client) -> Iterator[socket.socket]:
    """A plain connection to the service."""
    with closing(socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=60)) as connection:
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    """All that comes until the service closes its end; a reset, which says that nobody reads, ends it too."""
    said = b""
    try:
        while chunk := connection.recv(65536):
            said += chunk
    except ConnectionResetError:
        pass
    return said


# The key comes first


@pytest.mark.parametrize("route", [route for route in SCOPES if not route.startswith("GET")])
@pytest.mark.parametrize("length", ["Content-Length: 60000000", "Transfer-Encoding: chunked"])
def test_who_brings_no_key_is_refused_before_a_byte_of_the_body(guarded: World, route: str, length: str):
    """The body never comes: whoever waited for it would not answer."""
    method, path = route.split(" ")
    head = f"{method} {path.format(**PATHS)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with connected(guarded.http) as connection:
        connection.sendall(f"{head}{length}\r\n\r\n".encode())
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer.lower()


def test_who_may_not_is_refused_before_a_byte_of_the_body(guarded: World):
    with guarded.database.write() as connection:
        secret = keys.create(connection, name="reader", scopes={Scope.PREDICT}, model_id=None, rate=None)[1]
    head = f"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
    with connected(guarded.http) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 60000000\r\n\r\n".encode())
        assert until_closed(connection).startswith(b"HTTP/1.1 403 ")


def test_a_body_that_is_no_json_is_not_looked_at_without_a_key(guarded: World):
    answer = guarded.http.post("/v1/models", content=b"{", headers={"Content-Type": "application/json"})
    problem(answer, 401, "unauthenticated")


def test_every_route_with_a_scope_stands_behind_the_door():
    routes = [route for module in (*GUARDED, inference) for route in module.router.routes]
    assert routes
    assert all(isinstance(route, Guarded) for route in routes)


# Unknown parameters are mistakes


@pytest.mark.parametrize("route", [route for route in SCOPES if route != METRICS])
def test_an_unknown_parameter_is_named_with_those_that_are_known(http, world: World, route: str):
    answer = asked(world, route + "?promotion=manual", {})
    detail = refusal(answer, route, 400 if " /v2" in route else 422, "invalid")
    assert "'promotion'" in detail
    assert "known are" in detail or "takes none" in detail


def test_a_misspelt_wish_queues_nothing(http, world: World):
    name = world.model()
    answer = http.post(f"/v1/models/{name}/increments?promotion=manual", content=class_zip("cat", "dog"))
    assert "known are strategy, recipe, promote, known_classes" in problem(answer, 422, "invalid")["detail"]
    assert http.get(f"/v1/models/{name}/increments").json()["items"] == []


@pytest.mark.parametrize("query", ["promotion", "Promote=auto", "promote%20=auto", "=", "%00=1", "promote[]=auto"])
def test_parameters_are_known_letter_by_letter(http, world: World, query: str):
    answer = http.post(f"/v1/models/{world.model()}/increments?{query}", content=class_zip("cat", "dog"))
    assert "Unknown query parameter" in problem(answer, 422, "invalid")["detail"]


@pytest.mark.parametrize("query", ["promote=auto&promote=manual", "promote=auto&promote=auto"])
def test_a_parameter_that_comes_twice_is_refused(http, world: World, query: str):
    answer = http.post(f"/v1/models/{world.model()}/increments?{query}", content=class_zip("cat", "dog"))
    assert "promote was given more than once" in problem(answer, 422, "invalid")["detail"]


def test_parameters_of_prometheus_and_of_probes_do_no_harm(http):
    for path in ("/metrics?name[]=up", "/livez?now=1", "/v2/health/live?now=1"):
        assert http.get(path).status_code == 200


# Bodies are read or refused


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("DELETE", "/v1/models/{}"), ("POST", "/v1/increments/0/cancel")]
)
def test_a_body_that_nobody_would_read_is_refused(http, world: World, method: str, path: str):
    name = world.model()
    answer = http.request(method, path.format(name), json={"reason": "late"})
    assert "takes no body" in problem(answer, 422, "invalid")["detail"]
    assert http.get(f"/v1/models/{name}").status_code == 200


def test_who_cannot_but_send_an_empty_object_may(http, world: World):
    increment = world.increment(world.model(), "cat", "dog")
    assert http.post(f"/v1/increments/{increment['id']}/cancel", json={}).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate, gzip", "x"])
@pytest.mark.parametrize("path", ["increments", "batches", "predictions"])
def test_a_compressed_body_is_refused_where_nobody_unpacks_it(http, world: World, coding: str, path: str):
    content = gzip.compress(class_zip("cat", "dog"))
    answer = http.post(f"/v1/models/{world.model()}/{path}", content=content, headers={"Content-Encoding": coding})
    assert "Content-Encoding" in problem(answer, 415, "media-type-unsupported")["detail"]


def test_compressed_json_is_refused_by_its_coding(http):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = http.post("/v1/models", content=gzip.compress(b'{"name": "x"}'), headers=headers)
    problem(answer, 415, "media-type-unsupported")


def test_a_body_that_is_none_in_disguise_is_taken(http, world: World):
    headers = {"Content-Encoding": "identity"}
    answer = http.post(f"/v1/models/{world.model()}/batches", content=class_zip("cat", "dog"), headers=headers)
    assert answer.json()["images"] == 6


# JSON is bounded


def as_json(http: httpx.Client, body: str | bytes) -> httpx.Response:
    return http.post("/v1/models", content=body, headers={"Content-Type": "application/json"})


def test_json_of_more_than_a_mebibyte_is_refused(http):
    assert problem(as_json(http, b" " * ((1 << 20) + 1)), 413, "too-large")["limit"] == 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "x", "recipe": {' + ",".join(f'"{n}": 1' for n in range(MAX_VALUES)) + "}}",
        '{"name": "x", "recipe": ' + "[" * (MAX_VALUES + 1),
        "[" + "[]," * MAX_VALUES + "[]]",
    ],
    ids=["keys", "depth", "lists"],
)
def test_json_of_too_many_values_is_refused(http, body: str):
    assert problem(as_json(http, body), 413, "too-large")["limit"] == MAX_VALUES


def test_json_that_is_nested_too_deeply_is_refused(http):
    assert "nested" in problem(as_json(http, b'{"name":' + b"[" * 15_000), 422, "request-invalid")["detail"]


@pytest.mark.parametrize("body", ['{"name": "a", "name": "b"}', '{"name": "a", "recipe": {"epochs": 1, "epochs": 2}}'])
def test_a_name_that_comes_twice_in_json_is_refused(http, body: str):
    assert "twice" in problem(as_json(http, body), 422, "invalid")["detail"]


def test_a_number_that_is_too_long_is_refused(http):
    answer = as_json(http, '{"name": "a", "recipe": {"epochs": ' + "1" * 5000 + "}}")
    assert "number" in problem(answer, 422, "invalid")["detail"]


def test_json_of_pictures_may_be_longer_than_other_json(settings_for, tmp_path):
    """As shipped: the limits are the service's own."""
    defaults = Settings()
    limits = {name: getattr(defaults, name) for name in ("max_request_bytes", "max_images_per_request")}
    with running(settings_for(tmp_path, **limits)) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        path = f"/v1/models/{name}/predictions"
        large = json.dumps({"images": ["A" * (defaults.max_json_bytes * 2)]})
        assert world.http.post(path, content=large, headers={"Content-Type": "application/json"}).status_code == 422
        larger = " " * (defaults.max_prediction_json_bytes + 1)
        answer = world.http.post(path, content=larger, headers={"Content-Type": "application/json"})
        assert "multipart" in problem(answer, 413, "too-large")["detail"]
        assert world.http.post(path, content=picture(1)).status_code == 200


# Options mean the same wherever they stand

WAYS = ["query", "form", "json"]
NAMED = {"strategy": "lwf", "recipe": '{"epochs": 3}', "promote": "manual", "known_classes": "rehearse"}


def wished(http: httpx.Client, world: World, way: str, fields: dict[str, str]) -> httpx.Response:
    """An increment with options as they come in one of the ways."""
    name = world.model()
    path, content = f"/v1/models/{name}/increments", class_zip("cat", "dog")
    if way == "query":
        return http.post(path, params=fields, content=content)
    if way == "form":
        return http.post(path, data=fields, files={"data": content})
    batch = http.post(f"/v1/models/{name}/batches", content=content).json()["id"]
    recipe = {"recipe": json.loads(fields["recipe"])} if fields.get("recipe") else {}
    return http.post(path, json={"batch_id": batch, **fields, **recipe})


@pytest.mark.parametrize("way", WAYS)
def test_options_mean_the_same_wherever_they_stand(http, world: World, way: str):
    asked = wished(http, world, way, NAMED).json()
    assert {name: asked[name] for name in ("strategy", "promote", "known_classes")} == {
        name: NAMED[name] for name in ("strategy", "promote", "known_classes")
    }
    assert asked["recipe"]["epochs"] == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("value", ["", "MANUAL", " manual", "manual "])
def test_an_option_is_taken_letter_by_letter_and_never_empty(http, world: World, way: str, name: str, value: str):
    if (way, name) == ("json", "recipe"):
        pytest.skip("an object in JSON")
    answer = wished(http, world, way, {name: value})
    assert answer.status_code == 422
    assert name in answer.json()["detail"] or "trategy" in answer.json()["detail"]


@pytest.mark.parametrize("way", ["query", "form"])
def test_a_recipe_that_names_a_field_twice_is_refused(http, world: World, way: str):
    answer = wished(http, world, way, {"recipe": '{"epochs": 1, "epochs": 2}'})
    assert "twice" in problem(answer, 422, "recipe-invalid")["detail"]


def test_json_that_names_an_option_twice_is_refused(http, world: World):
    body = '{"batch_id": "x", "promote": "manual", "promote": "auto"}'
    path = f"/v1/models/{world.model()}/increments"
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert "'promote' twice" in problem(answer, 422, "invalid")["detail"]


def test_a_form_that_names_a_field_twice_is_refused(http, world: World):
    files = [("promote", (None, "manual")), ("promote", (None, "auto")), ("data", ("a.zip", class_zip("cat", "dog")))]
    answer = http.post(f"/v1/models/{world.model()}/increments", files=files)
    assert "'promote'" in problem(answer, 422, "batch-invalid")["detail"]


def test_a_field_that_a_batch_does_not_have_is_refused(http, world: World):
    files = {"promote": (None, "manual"), "data": ("a.zip", class_zip("cat", "dog"))}
    answer = http.post(f"/v1/models/{world.model()}/batches", files=files)
    assert "promote" in problem(answer, 422, "invalid")["detail"]


@pytest.mark.parametrize("path", ["increments", "batches", "predictions"])
def test_a_form_whose_header_lacks_the_boundary_is_told_so(http, world: World, path: str):
    body = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n1\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data"}
    answer = http.post(f"/v1/models/{world.model()}/{path}", content=body, headers=headers)
    assert answer.status_code == 422
    assert "boundary" in answer.json()["detail"]
