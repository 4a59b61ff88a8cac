"""What the service says of itself: metrics for Prometheus, request ids, and logs as text or JSON."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api.http.telemetry import Observer
from api.measures import Measures
from storage.logs import JsonLines, TextLines, configure, request_id
from storage.settings import Settings
from tests.api.worlds import SIZE, eventually, picture, running


def samples(http: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels, as Prometheus's own parser reads them."""
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(http: httpx.Client, name: str, **labels: str) -> float:
    """One sample, 0 where there is none yet."""
    return samples(http).get((name, frozenset(labels.items())), 0.0)


# Metrics


def test_requests_are_counted_by_route_and_status_however_they_are_spelled(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    route = "/v1/models/{name}/predictions"
    before = {
        status: value(http, "accrete_requests_total", method="POST", route=route, status=status)
        for status in ("200", "422")
    }
    for _ in range(3):
        http.post(f"/v1/models/{name}/predictions", content=picture(1))
    http.post(f"/v1/models/{name}/predictions", content=b"junk")
    for status, more in (("200", 3), ("422", 1)):
        now = value(http, "accrete_requests_total", method="POST", route=route, status=status)
        assert now - before[status] == more
    assert value(http, "accrete_request_seconds_count", route=route) >= 4
    for n in range(5):
        http.get(f"/nothing/{n}")
        http.request("BREW", "/livez")
    found = samples(http)
    assert not any("nothing" in word for _, labels in found for _, word in labels)
    assert {dict(labels)["method"] for sample, labels in found if sample == "accrete_requests_total"} <= {
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "HEAD",
        "other",
    }


def test_serving_is_measured_from_queue_to_answer(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    counters = ("queue_seconds_count", "inference_seconds_count", "minibatch_images_sum", "decode_seconds_count")
    before = {counter: value(http, f"accrete_{counter}") for counter in counters}
    form = [("images", (f"{n}.png", picture(n), "image/png")) for n in range(5)]
    assert http.post(f"/v1/models/{name}/predictions", files=form).status_code == 200
    after = {counter: value(http, f"accrete_{counter}") - before[counter] for counter in counters}
    assert after == {
        "queue_seconds_count": 1,
        "inference_seconds_count": 1,
        "minibatch_images_sum": 5,
        "decode_seconds_count": 5,
    }
    assert value(http, "accrete_queue_images") == 0


def test_swaps_and_their_failures_are_counted_and_the_version_in_service_is_told(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    http.post(f"/v1/models/{name}/predictions", content=picture(1))
    assert value(http, "accrete_current_version", model=name) == 1
    swaps = value(http, "accrete_swap_seconds_count")
    world.version(name, "emu", "fox")
    assert eventually(lambda: value(http, "accrete_current_version", model=name) == 2)
    assert value(http, "accrete_swap_seconds_count") == swaps + 1
    broken = world.claim(world.increment(name, "gnu", "hen")["id"])
    world.publish(broken, ["gnu", "hen"], rewrite={"format": 99})
    assert eventually(lambda: value(http, "accrete_swap_failures_total", model=name) == 1)
    assert value(http, "accrete_current_version", model=name) == 2
    http.put(f"/v1/models/{name}/current", json={"version": 2})
    http.delete(f"/v1/models/{name}")
    assert ("accrete_current_version", frozenset({("model", name)})) not in samples(http)


def test_increments_are_counted_by_state_and_speed_is_told_while_they_train(http, world):
    name = world.model()
    before = {state: value(http, "accrete_increments", state=state) for state in ("queued", "running", "cancelled")}
    asked = world.increment(name, "cat", "dog")
    assert value(http, "accrete_increments", state="queued") == before["queued"] + 1
    claim = world.claim(asked["id"])
    world.progress(claim, stage="training", images_per_second=321.5)
    assert value(http, "accrete_increments", state="running") == before["running"] + 1
    assert value(http, "accrete_training_images_per_second", model=name) == 321.5
    world.publish(claim, ["cat", "dog"])
    assert ("accrete_training_images_per_second", frozenset({("model", name)})) not in samples(http)
    assert value(http, "accrete_increments", state="running") == before["running"]


def test_records_that_are_not_kept_cost_no_id(settings_for: Callable[..., Settings], tmp_path: Path):
    with running(settings_for(tmp_path, record_share=0.0)) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        asked = [world.http.post(f"/v1/models/{name}/predictions", content=picture(1)).json() for _ in range(5)]
        assert [one["id"] for one in asked] == [None] * 5
        durable = world.http.post(f"/v1/models/{name}/predictions?record=durable", content=picture(1)).json()["id"]
        assert [one["id"] for one in world.http.get(f"/v1/models/{name}/predictions").json()["items"]] == [durable]


def test_a_share_of_records_is_kept(settings_for: Callable[..., Settings], tmp_path: Path):
    with running(settings_for(tmp_path, record_share=0.5)) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        asked = [world.http.post(f"/v1/models/{name}/predictions", content=picture(1)).json()["id"] for _ in range(60)]
        kept = [one for one in asked if one is not None]
        assert 5 < len(kept) < 55
        assert all(world.http.get(f"/v1/predictions/{one}").status_code == 200 for one in kept)


def test_what_is_most_likely_asked_for_is_loaded_before_the_service_is_ready(
    settings_for: Callable[..., Settings], tmp_path: Path
):
    settings = settings_for(tmp_path, loaded_versions=2)
    names = []
    with running(settings) as world:
        for _ in range(3):
            names.append(world.model())
            world.version(names[-1], "cat", "dog")
        broken = world.claim(world.increment(names[1], "gnu", "hen")["id"])
        world.publish(broken, ["gnu", "hen"], rewrite={"format": 99})
    with running(settings) as world:
        assert eventually(lambda: world.http.get("/readyz").status_code == 200)
        loaded = [name for name in names if value(world.http, "accrete_current_version", model=name) == 1]
        assert loaded == names[1:]  # the two taught last, of which one is answered by the version before
        assert world.http.post(f"/v1/models/{names[0]}/predictions", content=picture(1)).status_code == 200


# Back-pressure over HTTP


def test_a_full_queue_is_503_with_the_time_to_come_again(settings_for: Callable[..., Settings], tmp_path: Path):
    """Four images may wait, of requests that arrive in great number; each is answered or told to come again."""
    with running(settings_for(tmp_path, max_waiting_images=4)) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        url = f"{world.http.base_url}/v1/models/{name}/predictions".replace("//v1", "/v1")

        async def ask_all() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:
                return await asyncio.gather(*(client.post(url, content=picture(n)) for n in range(60)))

        answers: list[httpx.Response] = []

        def some_refused() -> bool:
            """One round does it where the requests come fast enough."""
            answers.extend(asyncio.run(ask_all()))
            return any(one.status_code == 503 for one in answers)

        assert eventually(some_refused)
        assert {one.status_code for one in answers} == {200, 503}
        for refused in (one for one in answers if one.status_code == 503):
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.json()["type"] == "/problems/overloaded"
            assert "try again" in refused.json()["detail"]
        assert value(world.http, "accrete_refused_requests_total") == sum(one.status_code == 503 for one in answers)
        assert world.http.post(f"/v1/models/{name}/predictions", content=picture(1)).status_code == 200


def test_a_deadline_comes_with_the_request_or_from_the_settings(settings_for: Callable[..., Settings], tmp_path: Path):
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
    with running(settings_for(homes[0])) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        path = f"/v1/models/{name}/predictions"
        assert world.http.post(path, content=picture(1), headers={"Accrete-Deadline-Seconds": "30"}).status_code == 200
        late = world.http.post(path, content=picture(1), headers={"Accrete-Deadline-Seconds": "0.000001"})
        assert late.status_code == 504
        assert late.json()["type"] == "/problems/deadline-exceeded"
        for wrong in ("0", "-1", "soon", "nan", "inf"):
            answer = world.http.post(path, content=picture(1), headers={"Accrete-Deadline-Seconds": wrong})
            assert answer.status_code == 422, wrong
    with running(settings_for(homes[1], deadline_seconds=1e-6)) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        path = f"/v1/models/{name}/predictions"
        answer = world.http.post(path, content=picture(1), headers={"Accrete-Deadline-Seconds": "30"})
        assert answer.status_code == 504  # a request may ask for less than the service allows, not for more


# Request ids and logs


def test_a_request_id_that_comes_in_goes_out_and_others_are_made(http):
    assert http.get("/livez", headers={"X-Request-ID": "order-66/a"}).headers["X-Request-ID"] == "order-66/a"
    made = [http.get("/livez").headers["X-Request-ID"] for _ in range(2)]
    assert made[0] != made[1]
    for unfit in ("x" * 129, "a b", "a\tb", '"', ""):
        given = http.get("/livez", headers={"X-Request-ID": unfit}).headers["X-Request-ID"]
        assert re.fullmatch("[0-9a-f]{32}", given)
    assert http.get("/v1/models/nobody", headers={"X-Request-ID": "mine"}).headers["X-Request-ID"] == "mine"


@pytest.fixture
def root_logger(capsys: pytest.CaptureFixture[str]) -> Iterator[logging.Logger]:
    """The root logger, put back as it was while what it wrote to is still open."""
    assert capsys is not None  # torn down after this
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Every line that was written as JSON; the server of these tests has words of its own."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]


def test_json_lines_hold_the_request_the_fields_and_the_traceback(root_logger, capsys, tmp_path):
    configure(Settings(home=tmp_path, log_format="json"))
    mark = request_id.set("mine")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("a.module").exception("it failed: %s", "why", extra={"model": "plants"})
    finally:
        request_id.reset(mark)
    logging.getLogger("a.module").info("plain")
    failed, plain = logged(capsys)
    assert failed.pop("exception").endswith("ValueError: two\nlines")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", failed.pop("time"))
    assert failed == {
        "level": "error",
        "logger": "a.module",
        "message": "it failed: why",
        "request_id": "mine",
        "model": "plants",
    }
    assert "request_id" not in plain


def test_a_line_of_text_stays_one_line_and_names_its_request():
    record = logging.makeLogRecord({"msg": "a\r\nERROR forged: b", "levelname": "INFO", "name": "x"})
    record.request_id = "mine"
    assert TextLines().format(record).endswith("INFO x: a\\r\\nERROR forged: b [mine]")
    assert "\n" not in JsonLines().format(record)


def test_what_fails_and_what_changes_is_logged_under_its_id(
    settings_for: Callable[..., Settings], root_logger, capsys, tmp_path
):
    with running(settings_for(tmp_path)) as world:
        configure(Settings(home=tmp_path, log_format="json"))
        world.http.get("/v1/models/nobody", headers={"X-Request-ID": "failing"})
        world.http.post(
            "/v1/models", json={"name": "told", "image_size": SIZE}, headers={"X-Request-ID": "changing"}
        ).raise_for_status()
        world.http.get("/v1/models/told", headers={"X-Request-ID": "reading"})
        world.http.delete("/v1/models/told")
    # not before its threads have ended: capsys loses what is written while it is read
    lines = {line["request_id"]: line for line in logged(capsys) if line["logger"] == "api.requests"}
    assert "reading" not in lines
    assert (lines["failing"]["route"], lines["failing"]["status"]) == ("/v1/models/{name}", 404)
    assert (lines["changing"]["method"], lines["changing"]["status"]) == ("POST", 201)
    assert lines["changing"]["seconds"] > 0


def test_an_unexpected_error_is_logged_under_the_id_that_is_answered(
    settings_for: Callable[..., Settings], root_logger, capsys, tmp_path
):
    with running(settings_for(tmp_path)) as world:
        name = world.model()
        with world.database.write() as connection:
            connection.execute(text("DROP TABLE predictions"))
        configure(Settings(home=tmp_path, log_format="json"))
        answer = world.http.get(f"/v1/models/{name}/predictions", headers={"X-Request-ID": "unlucky"})
        assert answer.status_code == 500
        assert answer.headers["X-Request-ID"] == "unlucky"
        with httpx.Client(base_url=world.http.base_url, timeout=60) as another:  # that connection is closed
            route = "/v1/models/{name}/predictions"
            assert value(another, "accrete_requests_total", method="GET", route=route, status="500") == 1
    lines = [line for line in logged(capsys) if line["logger"] == "api.http.problems"]
    assert [line["request_id"] for line in lines] == ["unlucky"]
    assert "no such table" in lines[0]["exception"]


def test_an_answer_is_counted_before_its_last_part_goes_out():
    measures = Measures(CollectorRegistry())
    counted = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
        await asyncio.sleep(0)  # what an answer leaves to do, such as its record in the audit log

    async def send(message: Message) -> None:
        counted.append(count(measures, status=201))

    asyncio.run(Observer(app, failed=failed)(scope(measures), receive, send))
    assert counted == [0, 0, 1]
    assert count(measures, status=201) == 1


@pytest.mark.parametrize(("sent", "status"), [(0, 507), (1, 200), (2, 200)])
def test_an_answer_that_breaks_off_is_counted_once(sent: int, status: int):
    measures = Measures(CollectorRegistry())
    messages = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"a", "more_body": sent == 1},
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages[:sent]:
            await send(message)
        raise ConnectionResetError

    async def send(message: Message) -> None:
        assert message in messages or not sent

    with pytest.raises(ConnectionResetError):
        asyncio.run(Observer(app, failed=failed)(scope(measures), receive, send))
    assert count(measures, status=status) == 1


def scope(measures: Measures) -> Scope:
    """A request that no route takes, to an application with these measures."""
    service = SimpleNamespace(measures=measures, draining=asyncio.Event())
    application = SimpleNamespace(state=SimpleNamespace(service=service))
    return {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": [], "app": application}


def count(measures: Measures, *, status: int) -> float:
    """Requests that were answered so."""
    return (
        measures.registry.get_sample_value(
            "accrete_requests_total", {"method": "POST", "route": "none", "status": str(status)}
        )
        or 0.0
    )


async def failed(request: Request, error: Exception) -> Response:
    """What nobody else answers."""
    return PlainTextResponse(f"{request.url.path}: {error!r}", 507)


async def receive() -> Message:
    """Nothing comes: these applications do not ask."""
    raise AssertionError("an application asked for the body")
