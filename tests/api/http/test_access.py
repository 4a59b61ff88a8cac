"""Who may do what over HTTP: keys, their scopes, their models and their rates, and what the audit log says of it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_double
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter

from api.client.client import Client
from api.client.connection import Forbidden, RateLimited, Unauthenticated
from api.http.guarded_route import Guarded
from api.http.rights import needs
from api.keys.rates import Bucket, Rates
from api.process.embedded import keys_of
from storage.domain import AuditEntry, Scope
from storage.requests import audit, keys
from storage.settings import Settings, is_this_machine
from tests.api.scopes import SCOPES
from tests.api.worlds import World, eventually, picture, problem, running


@pytest.fixture(scope="module")
def guarded(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service that asks for keys."""
    with running(settings_for(tmp_path_factory.mktemp("guarded"), keys="auto")) as started:
        started.http.headers["Authorization"] = f"Bearer {made(started, Scope.ADMIN)}"
        yield started


def made(world: World, *scopes: Scope, model: str | None = None, rate: float | None = None, name: str = "robot") -> str:
    """A key of these scopes."""
    model_id = None
    if model is not None:
        from storage.history import models

        with world.database.read() as connection:
            model_id = models.get(connection, model).id
    with world.database.write() as connection:
        return keys.create(connection, name=name, scopes=scopes, model_id=model_id, rate=rate)[1]


def bearing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def log(world: World) -> list[AuditEntry]:
    """Everything on record, oldest first."""
    with world.database.read() as connection:
        return list(reversed(audit.page(connection, limit=1000, cursor=None).items))


PATHS = {
    "name": "nothing",
    "label": "a",
    "batch_id": "0" * 32,
    "image_id": "0" * 32,
    "increment_id": "0" * 32,
    "prediction_id": "0" * 32,
    "position": "0",
    "number": "1",
    "file": "version.json",
}


def asked(world: World, route: str, headers: dict[str, str]) -> httpx.Response:
    method, path = route.split(" ")
    return world.http.request(method, path.format(**PATHS), headers=headers)


def refusal(answer: httpx.Response, route: str, status: int, kind: str) -> str:
    """What a refused request is told, in the form that its route has for errors."""
    if " /v2" not in route:
        return str(problem(answer, status, kind)["detail"])
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


@pytest.fixture(scope="module")
def no_good(guarded: World) -> dict[str, str]:
    """What a request may bring in place of a key."""
    revoked = made(guarded, Scope.ADMIN, name="gone")
    with guarded.database.write() as connection:
        keys.revoke(connection, "gone")
    assert eventually(lambda: guarded.http.get("/v1/models", headers=bearing(revoked)).status_code == 401)
    wrong = keys.PREFIX + "x" * 43
    return {"none": "", "wrong": f"Bearer {wrong}", "basic": "Basic eDp5", "revoked": f"Bearer {revoked}"}


@pytest.mark.parametrize("route", SCOPES)
@pytest.mark.parametrize("key", ["none", "wrong", "basic", "revoked"])
def test_nothing_is_told_without_a_good_key(guarded: World, no_good: dict[str, str], route: str, key: str):
    before = len(log(guarded))
    answer = asked(guarded, route, {"Authorization": no_good[key]})
    refusal(answer, route, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert len(log(guarded)) == before


@pytest.mark.parametrize("route", SCOPES)
@pytest.mark.parametrize("scope", Scope)
def test_a_key_opens_what_its_scope_is_for_and_nothing_else(guarded: World, route: str, scope: Scope):
    answer = asked(guarded, route, bearing(made(guarded, scope)))
    if list(Scope).index(scope) >= list(Scope).index(SCOPES[route]):  # train includes predict, and admin both
        assert answer.status_code not in {401, 403}, answer.text
    else:
        detail = refusal(answer, route, 403, "forbidden")
        assert f"needs a key of scope '{SCOPES[route]}'" in detail
        assert f"accrete keys create NAME --scope {SCOPES[route]}" in detail


def test_a_route_says_once_what_a_key_needs_for_it_or_cannot_be_made():
    router = APIRouter(prefix="/v1", route_class=Guarded)
    for said in ([], [needs(Scope.TRAIN), needs(Scope.PREDICT)]):
        with pytest.raises(TypeError, match="which scope a key needs"):
            router.add_api_route("/secrets", lambda: None, dependencies=said)
    router.add_api_route("/secrets", lambda: None, dependencies=[needs(Scope.ADMIN)])
    assert [route.right.scope for route in router.routes if isinstance(route, Guarded)] == [Scope.ADMIN]


def test_probes_and_the_description_need_no_key(guarded: World):
    for path in ("/livez", "/readyz", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
        assert httpx.get(f"{guarded.http.base_url}{path}", timeout=60).status_code == 200


@pytest.fixture
def bound(guarded: World) -> tuple[World, str, str, dict[str, str]]:
    """A model, another one, and a key of all scopes for the first alone."""
    mine, other = guarded.model(), guarded.model()
    return guarded, mine, other, bearing(made(guarded, *Scope, model=mine))


def test_a_key_of_one_model_sees_no_other(bound):
    world, mine, other, headers = bound
    assert world.http.get(f"/v1/models/{mine}", headers=headers).json()["name"] == mine
    problem(world.http.get(f"/v1/models/{other}", headers=headers), 403, "forbidden")
    problem(world.http.get("/v1/models/none-of-that-name", headers=headers), 403, "forbidden")
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/models"), ("GET", "/v1/audit")):
        assert (
            "for one model only"
            in problem(world.http.request(method, path, headers=headers), 403, "forbidden")["detail"]
        )
    assert world.http.get("/v1/strategies", headers=headers).status_code == 200


def test_ids_of_another_model_are_as_if_they_were_not_there(bound):
    world, mine, other, headers = bound
    made_of: dict[str, set[str]] = {}
    for model in (mine, other):
        batch = world.http.post(f"/v1/models/{model}/batches").json()["id"]
        sent = world.http.post(f"/v1/batches/{batch}/images", params={"label": "a"}, content=picture(len(made_of)))
        image = sent.json()["images"][0]["id"]
        version = world.version(model, "a", "b")
        increment = world.http.get(f"/v1/models/{model}/increments").json()["items"][0]["id"]
        predicted = world.http.post(f"/v1/models/{model}/predictions?record=durable", content=picture(1)).json()["id"]
        made_of[model] = {
            f"/v1/batches/{batch}",
            f"/v1/images/{image}",
            f"/v1/increments/{increment}",
            f"/v1/predictions/{predicted}",
        }
        assert version == 1
    for path in made_of[mine]:
        assert world.http.get(path, headers=headers).status_code == 200
    for path in made_of[other]:
        missing = path.rpartition("/")[0] + "/" + "0" * 32
        there = world.http.get(path, headers=headers)
        nowhere = world.http.get(missing, headers=headers)
        assert there.status_code == nowhere.status_code == 404
        assert there.json()["detail"].replace(path.rpartition("/")[2], "0" * 32) == nowhere.json()["detail"]


def test_a_record_that_is_not_written_yet_is_its_model_s_too(bound):
    world, mine, _, headers = bound
    world.version(mine, "a", "b")
    answered = world.http.post(f"/v1/models/{mine}/predictions", content=picture(1), headers=headers).json()
    assert world.http.get(f"/v1/predictions/{answered['id']}", headers=headers).status_code == 200


def test_a_new_key_works_at_once_and_a_revoked_one_not_for_long(guarded: World):
    secret = made(guarded, Scope.PREDICT, name="short")
    headers = bearing(secret)
    assert guarded.http.get("/v1/models", headers=headers).status_code == 200
    time.sleep(3 * guarded.settings.watch_seconds)  # it is at hand now
    assert guarded.http.get("/v1/models", headers=headers).status_code == 200
    with guarded.database.write() as connection:
        keys.revoke(connection, "short")
    refused = eventually(lambda: guarded.http.get("/v1/models", headers=headers).status_code == 401)
    assert refused


def test_a_key_with_a_rate_is_told_when_to_come_again(guarded: World):
    headers = bearing(made(guarded, Scope.PREDICT, rate=2))
    answers: list[httpx.Response] = []

    def too_many() -> bool:
        """Sixteen at once: however slow they are one by one, together they come too often."""
        answers.extend(pool.map(lambda _: guarded.http.get("/v1/models", headers=headers), range(16)))
        return any(answer.status_code != 200 for answer in answers)

    with ThreadPoolExecutor(16) as pool:
        assert eventually(too_many)
    assert sum(answer.status_code == 200 for answer in answers) >= 2
    limited = next(answer for answer in answers if answer.status_code != 200)
    body = problem(limited, 429, "rate-limited")
    assert "2 times a second" in body["detail"]
    assert limited.headers["Retry-After"] == "1"
    assert eventually(lambda: guarded.http.get("/v1/models", headers=headers).status_code == 200)
    assert guarded.http.get("/v1/models").status_code == 200  # others are not held up


def test_a_bucket_gives_what_it_was_filled_with_and_no_more():
    bucket = Bucket(4, c_double(0))
    assert [bucket.wait(100) for _ in range(5)] == [0, 0, 0, 0, 0.25]
    assert [bucket.wait(100.25) for _ in range(2)] == [0, 0.25]
    assert [bucket.wait(3700) for _ in range(5)] == [0, 0, 0, 0, 0.25]
    slow = Bucket(0.1, c_double(0))
    assert [slow.wait(0), slow.wait(0), slow.wait(5)] == [0, 10, 5]


def test_a_bucket_does_not_mind_large_clocks():
    bucket = Bucket(1000 / 3, c_double(0))
    now = 31_556_952.123
    assert [bucket.wait(now) > 0 for _ in range(340)] == [False] * 333 + [True] * 7


def test_processes_count_a_rate_together(tmp_path):
    one, other = Rates(tmp_path), Rates(tmp_path)
    assert [rates.wait("key", 2) > 0 for rates in (one, other, one, other)] == [False, False, True, True]
    assert other.wait("another", 2) == 0
    assert Rates(None).wait("key", 2) == 0


def test_changes_are_on_record_with_who_asked_and_how_it_ended(guarded: World):
    secret = made(guarded, Scope.ADMIN, name="anna")
    before = len(log(guarded))
    headers = bearing(secret)
    guarded.http.post("/v1/models", json={"name": "audited"}, headers=headers)
    guarded.http.post("/v1/models", json={"name": "audited"}, headers=headers)
    guarded.http.post("/v1/models", json={"name": "no good name"}, headers=headers)
    guarded.http.get("/v1/models/audited", headers=headers)
    guarded.http.post("/v1/models/audited/predictions", content=picture(1), headers=headers)
    guarded.http.delete("/v1/models/audited", headers=headers)
    # the end is written once the answer is out
    assert eventually(lambda: all(entry.status is not None for entry in log(guarded)[before:]))
    entries = log(guarded)[before:]
    assert [(entry.action, entry.path, entry.status) for entry in entries] == [
        ("POST /v1/models", "/v1/models", 201),
        ("POST /v1/models", "/v1/models", 409),
        ("POST /v1/models", "/v1/models", 422),
        ("DELETE /v1/models/{name}", "/v1/models/audited", 204),
    ]
    assert {(entry.key_name, entry.client) for entry in entries} == {("anna", "127.0.0.1")}
    shown = guarded.http.get("/v1/audit", params={"limit": 1}).json()
    assert (shown["items"][0]["action"], shown["items"][0]["status"]) == ("DELETE /v1/models/{name}", 204)
    assert shown["items"][0]["key_name"] == "anna"
    assert shown["next_cursor"]


def test_no_key_is_ever_shown_or_logged(guarded: World, caplog: pytest.LogCaptureFixture):
    secret = made(guarded, Scope.TRAIN)
    with caplog.at_level("DEBUG"):
        answers = [asked(guarded, route, bearing(secret)) for route in SCOPES]
    everything = caplog.text + "".join(f"{answer.headers}{answer.text}" for answer in answers)
    assert secret not in everything
    assert secret.removeprefix(keys.PREFIX) not in everything
    database = b"".join(path.read_bytes() for path in Path(guarded.settings.home).glob("accrete.db*"))
    assert secret.removeprefix(keys.PREFIX).encode() not in database


def test_the_client_brings_its_key_and_says_what_is_wrong_with_it(guarded: World):
    url = str(guarded.http.base_url)
    with Client(url, key=made(guarded, Scope.PREDICT, rate=0.01)) as client:
        with pytest.raises(Forbidden, match="scope 'train'"):
            client.create_model("never")
        with pytest.raises(RateLimited) as limited:
            list(client.models())
        assert limited.value.extra["retry_after"] > 50
    with Client(url) as client, pytest.raises(Unauthenticated, match="API key"):
        list(client.models())


# Without keys: only this machine, and nobody who merely looks like it.


def test_on_this_machine_no_key_is_needed_and_a_wrong_one_is_wrong_all_the_same(world: World):
    assert world.http.get("/v1/models").status_code == 200
    problem(world.http.get("/v1/models", headers=bearing("nonsense")), 401, "unauthenticated")


@pytest.mark.parametrize("host", ["localhost:80", "127.0.0.1", "127.8.9.1:9000", "[::1]:8000", "LOCALHOST"])
def test_names_of_this_machine_are_answered(world: World, host: str):
    assert world.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.5", "", "[::2]"]
)
def test_a_name_that_was_bent_to_this_machine_is_not(world: World, host: str):
    answer = world.http.get("/v1/models", headers={"Host": host})
    assert answer.status_code in {400, 403}  # an empty one does not get past the HTTP parser
    if host:
        assert "ACCRETE_KEYS=required" in problem(answer, 403, "forbidden")["detail"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
def test_nobody_behind_a_proxy_is_taken_for_this_machine(world: World, header: str):
    detail = problem(world.http.get("/v1/models", headers={header: "10.1.2.3"}), 403, "forbidden")["detail"]
    assert "proxy" in detail


def test_a_web_page_of_another_site_gives_no_orders(world: World):
    name = world.model()
    answer = world.http.delete(f"/v1/models/{name}", headers={"Origin": "https://evil.example"})
    problem(answer, 403, "forbidden")
    assert world.http.get(f"/v1/models/{name}").status_code == 200
    own = str(world.http.base_url).rstrip("/")
    assert world.http.delete(f"/v1/models/{name}", headers={"Origin": own}).status_code == 204


@pytest.mark.parametrize(
    ("host", "needed"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("[::1]", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.1.5", True),
        ("accrete.example", True),
        ("127.0.0.1.example", True),
        ("", True),
    ],
)
def test_keys_are_needed_wherever_others_can_reach(host: str, needed: bool):
    assert is_this_machine(host) is not needed
    assert Settings(host=host).keys_needed
    assert Settings(host=host, keys="required").keys_needed
    assert Settings(host=host, keys="none").keys_needed is needed
    assert keys_of(Settings(host=host)) == ("required" if needed else "none")
    assert keys_of(Settings(host=host, keys="required")) == "required"
    assert keys_of(Settings(host=host, admin_key_file=Path("admin.key"))) == "required"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:8000"])
def test_nobody_behind_a_proxy_that_names_itself_as_this_machine_is_let_in_without_a_key(guarded: World, host: str):
    """Nginx's `proxy_pass` without further ado: our own address as Host, and not a word of where it came from."""
    answer = httpx.post(
        f"{str(guarded.http.base_url).rstrip('/')}/v1/models", json={"name": "taken-over"}, headers={"Host": host}
    )
    assert "accrete keys create" in problem(answer, 401, "unauthenticated")["detail"]


def test_a_key_of_one_model_is_told_which_and_what_would_do(bound):
    world, mine, other, headers = bound
    detail = problem(world.http.get(f"/v1/models/{other}", headers=headers), 403, "forbidden")["detail"]
    assert mine in detail
    assert "accrete keys create NAME" in detail
    detail = problem(world.http.post("/v1/models", json={"name": "n"}, headers=headers), 403, "forbidden")["detail"]
    assert "accrete keys create NAME --scope train" in detail


def test_a_page_that_a_setting_names_gives_orders_on_this_machine(settings_for, tmp_path):
    page = "http://localhost:5173"
    with running(settings_for(tmp_path, cors_origins=f"{page}, *")) as world:
        assert world.http.get("/v1/models", headers={"Origin": page}).status_code == 200
        problem(world.http.get("/v1/models", headers={"Origin": "https://evil.example"}), 403, "forbidden")


def test_predictions_go_on_while_the_database_is_away(guarded: World, monkeypatch: pytest.MonkeyPatch):
    """The keys last seen stay good: here the ring itself, whose database cannot be reached any more."""
    from api.keys.keyring import KeyRing
    from storage.database.engine import Database

    secret = made(guarded, Scope.PREDICT)
    database = Database(guarded.settings.database)
    ring = KeyRing(database, watch_seconds=0.01)
    ring.start()
    assert eventually(lambda: ring.known(keys.digest_of(secret)) is not None)
    looks = threading.Event()

    def away():
        from sqlalchemy.exc import OperationalError

        looks.set()
        raise OperationalError("SELECT 1", {}, Exception("away"))

    monkeypatch.setattr(database, "read", away)
    assert looks.wait(60)
    assert ring.known(keys.digest_of(secret)) is not None
    monkeypatch.undo()
    ring.stop()
    database.close()
