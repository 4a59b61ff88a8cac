"""What the client, the command line and the service's start say of others' names, of passwords and of keys."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from api.client.client import Client, Event
from api.client.connection import ClientError, Unreachable
from api.commands.progress import Bars
from api.process.processlog import ProcessLog
from storage.domain import Scope
from storage.work import leases
from tests.api.commands.test_commandline import SUCCESS, accrete
from tests.api.http.test_access import made
from tests.api.servers import Scripted, answer, event, scripted_servers, stream
from tests.api.worlds import problem, running

SECRET = "geheim-0123456789abcdef"
STEERING = "\x1b[2J\x9b2J\x7f\u2028\u202e\r"


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Start scripted servers."""
    with scripted_servers() as start:
        yield start


@pytest.mark.parametrize(
    "url",
    [
        "http://user:{}@127.0.0.1:9",
        "http://{}@127.0.0.1:9",
        "http://user:a@b/{}@127.0.0.1:9",
        "http://user:{}@[",
        "http://user:{}@127.0.0.1:99999",
        "http://user:{}@127.0.0.1:x",
        "htp://user:{}@127.0.0.1",
        "http://127.0.0.1:9/?key={}",
        "http://127.0.0.1:9/?anything={}",
        "http://127.0.0.1:9/#{}",
        "user:{}@127.0.0.1",
    ],
)
def test_an_address_with_a_password_is_never_told(url: str) -> None:
    with pytest.raises(ClientError) as raised, Client(url.format(SECRET), key="k" * 32) as client:
        list(client.models())
    assert SECRET not in str(raised.value)
    said = accrete("models", url=url.format(SECRET))
    assert said.exit_code == 1
    assert SECRET not in said.output
    assert "Traceback" not in said.output


def test_an_error_page_of_another_server_does_not_tell_the_password(scripted: Scripted) -> None:
    server = scripted(answer(502, b"<html>\x1b[2Jno", "text/html"))
    said = accrete("models", url=server.url.replace("//", f"//user:{SECRET}@"))
    assert "502" in said.stderr
    assert SECRET not in said.stderr
    assert "\x1b" not in said.stderr


@pytest.mark.parametrize("key", ["{}\nx", "{} x", "x\r\n{}", "{}\x00", "ключ{}", "{}\u2028x"])
def test_a_key_that_cannot_be_sent_is_named_without_its_letters(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientError, match="API key") as raised:
        Client("http://127.0.0.1:9", key=key.format(SECRET))
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    if "\x00" not in key:
        monkeypatch.setenv("ACCRETE_API_KEY", key.format(SECRET))
        said = accrete("models")
        assert (said.exit_code, SECRET in said.output) == (1, False)


def test_a_key_read_from_a_file_may_end_its_line(settings_for, tmp_path) -> None:
    with running(settings_for(tmp_path, keys="required")) as world:
        with Client(str(world.http.base_url), key=made(world, Scope.PREDICT) + "\n") as client:
            assert list(client.models()) == []
        with (
            Client(str(world.http.base_url), key="") as client,
            pytest.raises(ClientError, match="asks for an API key"),
        ):
            list(client.models())


def test_an_address_that_is_reached_by_nobody_is_named(scripted: Scripted) -> None:
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 "), Client("http://127.0.0.1:9") as client:
        list(client.models())


def model(name: str) -> dict[str, object]:
    numbers = {"channels": 3, "image_size": 8, "current": None, "head": None}
    return {"name": name, "network": "[red]x[/red]", "strategy": "a:smile:b", "classes": [], **numbers}


def test_names_are_shown_as_they_are_and_steer_nothing(scripted: Scripted) -> None:
    page = {"items": [model(f"a{STEERING}b\nc")], "next_cursor": None}
    said = accrete("models", url=scripted(answer(200, page)).url).stdout
    assert "a\\x1b[2J\\x9b2J\\x7f\\u2028\\u202e\\rb\\nc" in said
    assert "[red]x[/red]" in said
    assert "a:smile:b" in said
    assert len(said.splitlines()) == 3


def test_json_for_programs_steers_no_terminal_and_says_the_same(scripted: Scripted) -> None:
    page = {"items": [model(f"größe{STEERING}")], "next_cursor": None}
    said = accrete("models", "--json", url=scripted(answer(200, page)).url).stdout
    assert json.loads(said)["items"] == page["items"]
    assert "größe" in said
    assert all(character not in said for character in STEERING if character not in "[2J")
    followed = scripted(stream(event(1, "status", **{**SUCCESS, "note": STEERING}), complete=True))
    said = accrete("watch", "7", "--json", url=followed.url).stdout
    assert json.loads(said.splitlines()[0])["data"]["note"] == STEERING
    assert "\x7f" not in said


def test_an_error_of_the_service_steers_no_terminal(scripted: Scripted) -> None:
    refusal = {"type": "/problems/invalid", "status": 422, "detail": f"file {STEERING}[bold]x"}
    said = accrete("models", url=scripted(answer(422, refusal, "application/problem+json")).url)
    assert "[bold]x" in said.stderr
    assert all(character not in said.stderr for character in "\x1b\x9b\x7f\u2028\u202e\r")


def test_bars_show_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    reject = {"file": f"[red]x[/red]:smile:{STEERING}.png", "reason": "y"}
    with Bars("[bold]title") as bars:
        bars.happened(Event("status", {**SUCCESS, "rejects": [reject], "reject_count": 1}, "1"))
    said = drawn.getvalue()
    assert "[bold]title: version 4" in said
    assert "[red]x[/red]:smile:\\x1b[2J\\x9b2J" in said
    assert "\x1b[2J\x9b" not in said
    assert "\u202e" not in said


def test_what_parts_print_steers_no_terminal_and_tells_no_password(tmp_path: Path) -> None:
    shown: list[str] = []
    log = ProcessLog("worker", tmp_path, show=shown.append, verbose=True)
    log.follow(io.BytesIO(f"ERROR cannot reach redis://:{SECRET}@host {STEERING}\n".encode()))
    log.close()
    for said in (shown[0], log.path.read_text(), log.tail()):
        assert "cannot reach" in said
        assert SECRET not in said
        assert all(character not in said for character in "\x1b\x9b\x7f\u2028\u202e\r")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCRETE_DATABASE_URL", "postgresql://user:{}@127.0.0.1:x/db"),
        ("ACCRETE_DATABASE_URL", "postgresql://user:{}@127.0.0.1:1/db"),
        ("ACCRETE_DATABASE_URL", "://user:{}@h"),
        ("ACCRETE_DATABASE_URL", "user:{}@h"),
        ("ACCRETE_BLOB_URL", "s4://key:{}@bucket"),
        ("ACCRETE_BLOB_URL", "s3://bucket/p?secret_access_key={}"),
        ("ACCRETE_REDIS_URL", "nonsense://:{}@host"),
        ("ACCRETE_ADMIN_KEY_FILE", "{}"),
        ("ACCRETE_PORT", "{}"),
    ],
)
def test_a_setting_that_is_wrong_is_told_without_what_is_secret_in_it(tmp_path: Path, name: str, value: str) -> None:
    """As a process of its own, on whose standard error a traceback would stand, too."""
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("ACCRETE_")}
    settings = {"ACCRETE_HOME": str(tmp_path), "ACCRETE_KEYS": "required", "ACCRETE_REDIS_URL": "redis://127.0.0.1:1"}
    environment = inherited | settings | {name: value.format(SECRET)}
    command = [sys.executable, "-m", "api"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert ended.stderr
    assert SECRET not in ended.stdout + ended.stderr


def test_a_probe_does_not_tell_the_password_of_a_broker_that_is_away(settings_for, tmp_path) -> None:
    with running(settings_for(tmp_path, redis_url=f"redis://user:{SECRET}@127.0.0.1:1/0")) as world:
        said = world.http.get("/readyz")
        assert said.status_code == 503
        assert SECRET not in said.text


def test_a_key_in_an_address_is_not_on_record(settings_for, tmp_path) -> None:
    with running(settings_for(tmp_path, keys="required")) as world:
        secret = made(world, Scope.ADMIN)
        world.http.headers["Authorization"] = f"Bearer {secret}"
        problem(world.http.delete(f"/v1/models/{secret}"), 404, "model-not-found")
        assert secret not in world.http.get("/v1/audit").text


@pytest.mark.parametrize("ends", [True, False])
def test_why_an_increment_failed_is_told_without_a_password(settings_for, tmp_path, ends: bool) -> None:
    reason = f"cannot reach postgresql://user:{SECRET}@host/db"
    with running(settings_for(tmp_path)) as world:
        name = world.model()
        claim = world.claim(world.increment(name, "cat", "dog")["id"])
        with world.database.write() as connection:
            if ends:
                leases.refuse(connection, claim, reason=reason)
            else:
                leases.give_back(connection, claim, reason=reason, crashed=True, max_crashes=5)
        said = world.http.get(f"/v1/increments/{claim.increment_id}").text
    assert "cannot reach" in said
    assert SECRET not in said
