"""Keys of browsers: where they are, and for how long."""

import asyncio
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest
from starlette.requests import HTTPConnection

from api.dashboard import sessions
from api.dashboard.sessions import COOKIE, Sessions
from storage.domain import Scope
from storage.requests import keys
from tests.api.dashboard.conftest import Dashboard, dashboard_of
from tests.api.worlds import picture, running


def sent(cookie: str) -> HTTPConnection:
    """A request of a browser with a cookie."""
    return HTTPConnection({"type": "http", "headers": [(b"cookie", f"{COOKIE}={cookie}".encode())]})


def test_a_key_is_known_by_a_random_id_until_it_is_forgotten():
    kept = Sessions("http://127.0.0.1:1")
    first, second = kept.begin("secret"), kept.begin("secret")
    assert first != second
    assert "secret" not in first
    assert kept.key_of(sent(first)) == "secret"
    kept.end(first)
    assert kept.key_of(sent(first)) is None
    assert kept.key_of(sent(second)) == "secret"
    assert kept.key_of(sent("made-up")) is None


def test_a_key_that_is_long_unused_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    kept = Sessions("http://127.0.0.1:1")
    number = kept.begin("secret")
    monkeypatch.setattr(sessions, "LIFETIME_SECONDS", 0.0)
    assert kept.key_of(sent(number)) is None
    monkeypatch.undo()
    assert kept.key_of(sent(number)) is None


def test_of_too_many_sessions_the_one_that_was_used_least_recently_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "CAPACITY", 2)
    kept = Sessions("http://127.0.0.1:1")
    first, second = kept.begin("a"), kept.begin("b")
    kept.key_of(sent(first))
    kept.begin("c")
    assert (kept.key_of(sent(first)), kept.key_of(sent(second))) == ("a", None)


def test_a_client_is_closed_with_the_last_session_of_its_key():
    async def sessions_come_and_go() -> None:
        kept = Sessions("http://127.0.0.1:1")
        first, second = kept.begin("secret"), kept.begin("secret")
        one, other = kept.client_of(sent(first)), kept.client_of(sent(second))
        assert one is other
        kept.end(first)
        await kept.tidy()
        assert kept.client("secret") is one
        kept.end(second)
        await kept.tidy()
        assert kept.client("secret") is not one
        await kept.close()

    asyncio.run(sessions_come_and_go())


def test_what_is_too_long_for_a_key_is_not_read_to_its_end(dashboard: Dashboard):
    assert httpx.post(f"{dashboard.url}/key", data={"key": "x" * 20_000}).status_code == 413


def test_a_browser_gives_its_key_once_and_keeps_none(settings_for, tmp_path: Path):
    with running(settings_for(tmp_path, keys="required")) as world:
        with world.database.write() as connection:
            secret = keys.create(connection, name="me", scopes={Scope.TRAIN})[1]
        given = {"Authorization": f"Bearer {secret}"}
        name = world.http.post("/v1/models", json={"name": "mine", "image_size": 8}, headers=given).json()["name"]
        batch = world.http.post(f"/v1/models/{name}/batches", headers=given).json()["id"]
        path = f"/v1/batches/{batch}/images"
        added = world.http.post(path, params={"label": "cat"}, content=picture(1), headers=given).json()["images"][0]
        with dashboard_of(str(world.http.base_url), tmp_path / "dashboard") as shown, httpx.Client() as browser:
            shot = f"{shown.url}/pictures/{added['id']}"
            assert browser.get(shot).status_code == 401
            refused = browser.post(f"{shown.url}/key", data={"key": "accrete_wrong"})
            assert refused.status_code == 403
            assert 'role="alert"' in refused.text
            answer = browser.post(f"{shown.url}/key", data={"key": secret})
            assert answer.status_code == 303
            (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
            assert (cookie["httponly"], cookie["samesite"]) == (True, "strict")
            assert secret not in answer.headers["Set-Cookie"]
            found = browser.get(shot, params={"side": 64})
            assert (found.status_code, found.headers["Content-Type"]) == (200, "image/jpeg")
            assert found.headers["X-Content-Type-Options"] == "nosniff"
            assert (
                browser.get(shot, params={"side": 64}, headers={"If-None-Match": found.headers["ETag"]}).status_code
                == 304
            )
            assert browser.post(f"{shown.url}/key", data={"end": "1"}).status_code == 303
            assert browser.get(shot).status_code == 401
            behind = browser.post(f"{shown.url}/key", data={"key": secret}, headers={"X-Forwarded-Proto": "https"})
            assert SimpleCookie(behind.headers["Set-Cookie"])[COOKIE]["secure"]
