"""The probes: what they say when all is well, and when something is not."""

import socket
from pathlib import Path

import pytest

from api.routes import health
from tests.api.worlds import redis_server, running


def test_alive_and_ready_without_any_model(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        assert world.http.get("/livez").json() == {"status": "ok", "checks": {}}
        ready = world.http.get("/readyz")
        assert ready.status_code == 200
        assert ready.json() == {"status": "ok", "checks": {"database": "ok", "broker": "ok"}}


def test_not_ready_while_redis_is_gone_and_ready_again_with_it(settings_for, tmp_path: Path):
    with redis_server(tmp_path / "redis") as url:
        settings = settings_for(tmp_path, redis_url=url)
    with running(settings) as world:
        gone = world.http.get("/readyz")
        assert gone.status_code == 503
        assert gone.json()["status"] == "unavailable"
        assert gone.json()["checks"]["database"] == "ok"
        assert gone.json()["checks"]["broker"] != "ok"
        assert world.http.get("/livez").status_code == 200
        with redis_server(tmp_path / "redis"):
            assert world.http.get("/readyz").status_code == 200


def test_not_ready_with_a_database_that_has_no_such_place(settings_for, tmp_path):
    settings = settings_for(tmp_path, database_url=f"sqlite:///{tmp_path}/nowhere/accrete.db")
    with running(settings) as world:
        gone = world.http.get("/readyz")
        assert gone.status_code == 503
        assert "unable to open" in gone.json()["checks"]["database"]


def test_a_broker_that_never_answers_does_not_hold_the_probe_up(settings_for, tmp_path, monkeypatch):
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with running(settings_for(tmp_path, redis_url=url)) as world:
            answer = world.http.get("/readyz")
            assert answer.status_code == 503
            assert "0.3 s" in answer.json()["checks"]["service"]
            silent.close()


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/nothing", "/v1/models/a/b/c", "//", "/%00", "/..%2f..%2fetc%2fpasswd"]
)
def test_a_path_that_is_not_there_is_a_problem_document(http, path):
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/not-found"
