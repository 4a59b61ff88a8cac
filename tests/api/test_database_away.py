"""A database that is away or locked: 503 with the time to come again, and predictions go on."""

import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

from storage.database import engine
from tests.api.worlds import World, eventually, picture, running
from tests.postgresql import PostgreSQL

SERVED = {"/v2/models/{name}/ready", "/v2/models/{name}/versions/{number}/ready"}  # by what is loaded
UNTOUCHED = {"/livez", "/readyz", "/metrics", "/v1/strategies", "/v2", "/v2/health/live", "/v2/health/ready"} | {
    "/problems",
    "/problems/{kind}",
    *SERVED,
}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/models"): {"json": {"name": "another"}},
    ("patch", "/v1/models/{name}"): {"json": {"retention": "all"}},
    ("put", "/v1/models/{name}/current"): {"json": {"version": 1}},
    ("post", "/v1/models/{name}/increments"): {"json": {"batch_id": "0" * 32}},
}


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Another process is writing to SQLite and does not come to an end."""
    with closing(sqlite3.connect(world.settings.home / "accrete.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def operations(world: World, name: str) -> Iterator[tuple[str, str]]:
    """Every method and path that the service describes."""
    for path, methods in world.http.get("/openapi.json").json()["paths"].items():
        for method in methods:
            if method in {"get", "post", "put", "patch", "delete"}:
                yield method, path


def ask(world: World, name: str, method: str, path: str):
    """Ask for something with parameters that could be right."""
    known = {"name": name, "number": "1", "label": "cat", "file": "version.json"}
    filled = re.sub(r"{(\w+)}", lambda found: known.get(found[1], "0" * 32), path)
    body: dict[str, Any] = BODIES.get((method, path), {"content": picture(1)} if method == "post" else {})
    return world.http.request(method, filled, **body)


def test_every_route_is_503_while_postgresql_is_away_and_predictions_go_on(settings_for, tmp_path, server):
    with running(settings_for(tmp_path, database_url=server.url(_migrated(server)))) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        predict = f"/v1/models/{name}/predictions"
        assert world.http.post(predict, content=picture(1)).status_code == 200
        described = list(operations(world, name))
        server.stop()
        refused = []
        for method, path in described:
            answer = ask(world, name, method, path)
            assert answer.status_code == 503 or answer.status_code < 500, (method, path, answer.text)
            if answer.status_code == 503 and path not in UNTOUCHED:
                refused.append((method, path))
                assert int(answer.headers["Retry-After"]) >= 1, (method, path)
                assert "database" in answer.text
        unharmed = {("post", "/v1/models/{name}/predictions"), ("post", "/v2/models/{name}/infer")}
        reading = {one for one in described if one[0] == "get" and one[1] not in UNTOUCHED}
        assert reading | BODIES.keys() <= set(refused)
        assert unharmed.isdisjoint(refused)
        answer = world.http.post(predict, content=picture(2))
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        assert world.http.get("/livez").status_code == 200
        assert world.http.get("/readyz").status_code == 503
        server.start()
        assert eventually(lambda: world.http.get("/readyz").status_code == 200)
        assert world.http.get(f"/v1/models/{name}").status_code == 200


def _migrated(server: PostgreSQL) -> str:
    from storage.migrations import upgrade

    name = server.create()
    upgrade(server.url(name))
    return name


def test_a_database_that_is_locked_for_too_long_is_503(settings_for, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_SECONDS", 0.2)
    with running(settings_for(tmp_path)) as world:
        name = world.model()
        with locked(world):
            answer = world.http.post("/v1/models", json={"name": "late"})
            assert answer.status_code == 503
            assert answer.json()["type"] == "/problems/database-unavailable"
            assert int(answer.headers["Retry-After"]) >= 1
            assert world.http.get(f"/v1/models/{name}").status_code == 200
        assert eventually(lambda: world.http.post("/v1/models", json={"name": "late"}).status_code == 201)


def test_readers_of_sqlite_do_not_wait_behind_writers(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world, ThreadPoolExecutor(30) as pool:
        name = world.model()
        world.version(name, "cat", "dog")
        predict = f"/v1/models/{name}/predictions"
        assert world.http.post(predict, content=picture(2)).status_code == 200  # the version is loaded
        with locked(world):
            writers = [pool.submit(world.http.post, "/v1/models", json={"name": f"m{n}"}) for n in range(30)]
            for path in (f"/v1/models/{name}", "/v1/models", f"/v1/models/{name}/versions/1/metrics"):
                assert world.http.get(path).status_code == 200
            assert world.http.post(predict, content=picture(1)).status_code == 200
            # A slow machine may take longer than writers wait for their turn; none of them had it.
            assert {writer.result().status_code for writer in writers if writer.done()} <= {503}
        assert {writer.result().status_code for writer in writers} <= {201, 503}


def test_sql_that_can_never_succeed_is_no_reason_to_come_again(settings_for, tmp_path):
    settings = settings_for(tmp_path)
    with running(settings) as world:
        with closing(sqlite3.connect(settings.home / "accrete.db")) as other:
            other.execute("DROP TABLE audit")
        answer = world.http.get("/v1/audit")
        assert answer.status_code == 500
        assert "Retry-After" not in answer.headers
