"""What the audit log says of a request that failed: the status that went out, or none, and never another one."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import text

from storage.domain import AuditEntry
from storage.migrations import upgrade
from storage.requests import audit
from storage.settings import Settings
from tests.api.http.test_telemetry import value
from tests.api.worlds import World, class_zip, eventually, running
from tests.postgresql import PostgreSQL

INCREMENTS = "/v1/models/{name}/increments"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 256 KB at that folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "accrete-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def last(world: World, path: str) -> AuditEntry | None:
    """The latest entry of a path."""
    with world.database.read() as connection:
        entries = audit.page(connection, limit=1000, cursor=None).items
    return next((entry for entry in entries if entry.path == path), None)


def noted(world: World, path: str) -> int | None:
    """The status of the latest entry of a path, once it has one: it is written when the answer is out."""
    assert eventually(lambda: (entry := last(world, path)) is not None and entry.status is not None)
    entry = last(world, path)
    return entry.status if entry is not None else None


@contextmanager
def half_sent(world: World, name: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A request for an increment that is on record and of whose body the rest is still to come."""
    body = class_zip("cat", "dog")
    url = world.http.base_url
    head = f"POST {INCREMENTS.format(name=name)} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n"
    head += f"Content-Type: application/zip\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.settimeout(60)
        connection.sendall(head.encode() + body[:100])
        assert eventually(lambda: last(world, INCREMENTS.format(name=name)) is not None)
        yield connection, body[100:]


def test_a_database_that_keeps_the_request_waiting_is_on_record_as_503(
    settings_for: Callable[..., Settings], tmp_path: Path, server: PostgreSQL
) -> None:
    database = server.create()
    upgrade(server.url(database))
    with psycopg.connect(server.url(database).replace("+psycopg", ""), autocommit=True) as other:
        other.execute(f'ALTER DATABASE "{database}" SET lock_timeout = 500')
        with running(settings_for(tmp_path, database_url=server.url(database))) as world:
            with other.transaction():
                other.execute("LOCK TABLE models IN EXCLUSIVE MODE")
                assert world.http.post("/v1/models", json={"name": "waiting"}).status_code == 503
            assert noted(world, "/v1/models") == 503
            assert value(world.http, "accrete_requests_total", method="POST", route="/v1/models", status="503") == 1


def test_a_database_that_goes_away_in_between_leaves_no_status_and_no_wrong_one(
    settings_for: Callable[..., Settings], tmp_path: Path, server: PostgreSQL
) -> None:
    database = server.create()
    upgrade(server.url(database))
    with running(settings_for(tmp_path, database_url=server.url(database))) as world:
        name = world.model()
        with half_sent(world, name) as (connection, rest):
            server.stop()
            connection.sendall(rest)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
            while connection.recv(1 << 16):  # the connection is closed once the request is over
                pass
        server.start()
        entry = last(world, INCREMENTS.format(name=name))
        assert entry is not None
        assert entry.status in {None, 503}  # it may be written once the database is back


def test_a_full_disk_is_on_record_and_counted_as_507(
    settings_for: Callable[..., Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(tmp_path)
    with small_disk(settings.scratch), running(settings) as world:
        name = world.model()
        answer = world.http.post(INCREMENTS.format(name=name), content=os.urandom(1 << 20))
        assert (answer.status_code, answer.json()["type"]) == (507, "/problems/storage-full")
        assert answer.headers["X-Request-ID"]
        with httpx.Client(base_url=world.http.base_url) as another:  # that connection may be closed
            assert value(another, "accrete_requests_total", method="POST", route=INCREMENTS, status="507") == 1
        assert noted(world, INCREMENTS.format(name=name)) == 507
    assert [record.name for record in caplog.records].count("api.http.problems") == 1


def test_a_client_that_goes_away_in_the_middle_is_on_record_as_what_it_would_have_been_told(world: World) -> None:
    name = world.model()
    with half_sent(world, name):
        pass
    assert noted(world, INCREMENTS.format(name=name)) == 400


def test_a_fault_of_ours_is_on_record_as_500(settings_for: Callable[..., Settings], tmp_path: Path) -> None:
    with running(settings_for(tmp_path)) as world:
        with world.database.write() as connection:
            connection.execute(text("DROP TABLE models"))
        assert world.http.post("/v1/models", json={"name": "unlucky"}).status_code == 500
        assert noted(world, "/v1/models") == 500
