"""The client against the real API, and against a server that breaks off, refuses and lies.

Each test is run with both clients: that of `api.client.asynchronous` in an event loop that waits for each call.
"""

import hashlib
import io
import json
import socket
import struct
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from api.client.client import Client, IncrementFailed
from api.client.connection import (
    CHUNK_BYTES,
    ClientError,
    Conflict,
    Invalid,
    NotFound,
    PreconditionFailed,
    Problem,
    TooLarge,
    Unavailable,
    Unreachable,
)
from api.client.packing import source_of
from tests.api.client.blocking import Blocking
from tests.api.servers import Scripted, answer, api_without_worker, event, stream


def png(shade: int, *, size: int = 8) -> bytes:
    """A grey image."""
    buffer = io.BytesIO()
    Image.new("L", (size, size), shade).save(buffer, "PNG")
    return buffer.getvalue()


def packed(folder: Path) -> bytes:
    """The zip that is sent for a folder."""
    return b"".join(source_of(folder).chunks(None))


@pytest.fixture(autouse=True, params=[Client, Blocking], ids=["client", "asynchronous"])
def client_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with one of the clients."""
    monkeypatch.setitem(globals(), "Client", request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three images, a hidden file, and a folder of another system."""
    for shade, name in enumerate(["cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png", "dog/3.png"]):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(40 * shade))
    (tmp_path / "images" / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "images" / ".git").mkdir()
    (tmp_path / "images" / ".git" / "config").write_bytes(b"x")
    return tmp_path / "images"


# Against the real API


def test_models_are_created_listed_changed_and_deleted(api_url: str) -> None:
    with Client(api_url) as client:
        assert list(client.models()) == []
        created = client.create_model("digits", channels=1, image_size=16, recipe={"epochs": 3}, memory=None)
        assert (created["channels"], created["image_size"], created["memory"]) == (1, 16, None)
        assert client.create_model("defaults")["memory"] == {"per_class": 20}
        assert {model["name"] for model in client.models()} == {"digits", "defaults"}
        assert client.change_model("digits", memory={"total": 100})["memory"] == {"total": 100}
        client.delete_model("defaults")
        assert [model["name"] for model in client.models()] == ["digits"]
        assert client.model("digits")["recipe"]["epochs"] == 3
        assert {"finetune", "lwf"} <= {strategy["name"] for strategy in client.strategies()}


def test_a_batch_is_collected_image_by_image_and_becomes_an_increment(api_url: str, folder: Path) -> None:
    with Client(api_url) as client:
        client.create_model("pets")
        batch = client.create_batch("pets")
        client.add_images(batch["id"], "cat", sorted((folder / "cat").glob("*.png")))
        images = client.add_images(batch["id"], "dog", sorted((folder / "dog").glob("*.png")))
        assert images[0]["digest"] == hashlib.sha256((folder / "dog/1.png").read_bytes()).hexdigest()
        assert {count["label"]: count["train"] for count in client.batch(batch["id"])["classes"]} == {
            "cat": 3,
            "dog": 3,
        }
        increment = client.start_increment("pets", batch_id=batch["id"], recipe={"epochs": 2}, promote="manual")
        assert (increment["status"], increment["recipe"]["epochs"], increment["promote"]) == ("queued", 2, "manual")
        assert [item["id"] for item in client.increments("pets")] == [increment["id"]]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_increment_is_uploaded_followed_and_cancelled(api_url: str, folder: Path, tmp_path: Path, kind: str) -> None:
    source = folder
    if kind == "zip":
        source = tmp_path / "pets.zip"
        source.write_bytes(packed(folder))
    sent: list[tuple[int, int]] = []
    with Client(api_url) as client:
        client.create_model("pets")
        increment = client.start_increment(
            "pets", source, recipe={"epochs": 2}, idempotency_key="once", on_upload=lambda *done: sent.append(done)
        )
        assert increment["recipe"]["epochs"] == 2
        assert sent[-1][0] == sent[-1][1] > 0
        repeated = client.start_increment("pets", source, recipe={"epochs": 2}, idempotency_key="once")
        assert repeated["id"] == increment["id"]
        assert client.cancel(increment["id"])["status"] == "cancelled"
        assert [event.data["status"] for event in client.events(increment["id"]) if event.kind == "status"][
            -1
        ] == "cancelled"
        with pytest.raises(IncrementFailed, match="cancelled"):
            client.wait(increment["id"])
        assert client.retry(increment["id"])["status"] == "queued"


def test_refusals_are_typed_and_carry_their_detail(api_url: str, folder: Path) -> None:
    with Client(api_url) as client:
        with pytest.raises(NotFound, match="nowhere") as missing:
            client.model("nowhere")
        assert missing.value.status == 404
        assert missing.value.kind == "model-not-found"
        client.create_model("pets")
        with pytest.raises(Conflict, match="pets"):
            client.create_model("pets")
        with pytest.raises(Invalid, match="lwf"):
            client.start_increment("pets", folder, strategy="magic")
        with pytest.raises(Conflict):
            client.predict("pets", [folder / "cat/1.png"])
        with pytest.raises(Conflict, match="no previous version"):
            client.rollback("pets")


# Event streams


def test_a_broken_stream_is_opened_again_where_it_broke_off(scripted: Scripted) -> None:
    first = [
        event(1, "status", status="queued"),
        event(None, "progress", stage="training"),
        event(2, "stage", stage="x"),
    ]
    server = scripted(
        stream(*first, complete=False),
        answer(503, {"detail": "starting"}, "application/problem+json"),
        stream(event(3, "epoch", epoch=1), complete=True),  # the service was stopped in good order
        stream(event(4, "status", status="succeeded"), complete=True),
    )
    with Client(server.url) as client:
        seen = list(client.events("7"))
    assert [event.id for event in seen] == ["1", None, "2", "3", "4"]
    assert [headers.get("last-event-id") for _, _, headers in server.requests] == [None, "2", "2", "3"]


def test_signs_of_life_between_events_are_no_events(scripted: Scripted) -> None:
    """The service writes a comment where nothing has happened for fifteen seconds; a proxy may write other fields."""
    silence = [": ping\n\n", "retry: 3000\n\n", "event: open\n\n"]
    events = [event(1, "status", status="queued"), *silence, event(2, "status", status="failed")]
    with Client(scripted(stream(*events, complete=True)).url) as client:
        assert [event.data["status"] for event in client.events("7")] == ["queued", "failed"]


def test_a_stream_that_was_open_in_silence_for_long_has_not_been_away(scripted: Scripted) -> None:
    first, last = event(1, "status", status="queued"), event(2, "status", status="failed")
    silent = stream(": ping\n\n", complete=False, pause_seconds=0.5)
    server = scripted(stream(first, complete=False), silent, silent, stream(last, complete=True))
    with Client(server.url) as client:
        assert [event.id for event in client.events("7", patience_seconds=0.4)] == ["1", "2"]


def test_events_that_are_not_json_are_an_error_that_says_so(scripted: Scripted) -> None:
    garbled = stream("event: status\ndata: <h1>Sorry</h1>\n\n", complete=True)
    with Client(scripted(garbled).url) as client, pytest.raises(ClientError, match="no event stream came back"):
        next(client.events("7"))


def test_a_final_status_of_an_earlier_try_does_not_end_the_stream(scripted: Scripted) -> None:
    states = ["queued", "failed", "queued", "succeeded"]
    events = [event(number, "status", status=status) for number, status in enumerate(states, start=1)]
    with Client(scripted(stream(*events, complete=True)).url) as client:
        assert [event.data["status"] for event in client.events("7")] == states


def test_following_ends_where_the_service_says_that_nothing_more_will_come(scripted: Scripted) -> None:
    broken = stream(event(1, "status", status="queued"), event(2, "status", status="queued"), complete=False)
    server = scripted(broken, answer(204, b""))
    with Client(server.url) as client:
        assert [event.id for event in client.events("i")] == ["1", "2"]
    assert server.requests[1][2]["last-event-id"] == "2"


def test_following_an_increment_of_which_all_was_read_ends_at_once(tmp_path: Path, folder: Path) -> None:
    with api_without_worker(tmp_path / "home") as url, Client(url) as client:
        client.create_model("m", image_size=8)
        asked = client.start_increment("m", folder)["id"]
        client.cancel(asked)
        last = list(client.events(asked))[-1]
        assert last.data["status"] == "cancelled"
        assert list(client.events(asked, last_event_id=last.id)) == []


def test_following_gives_up_when_the_service_stays_away(scripted: Scripted) -> None:
    server = scripted(stream(event(1, "status", status="running"), complete=False))
    with Client(server.url) as client:
        events = client.events("7", patience_seconds=0.3)
        assert next(events).id == "1"
        server.close()
        with pytest.raises(Unreachable, match="cannot reach"):
            next(events)


def test_following_an_unknown_increment_is_an_error_at_once(scripted: Scripted) -> None:
    server = scripted(answer(404, {"detail": "No increment 7."}, "application/problem+json"))
    with Client(server.url) as client, pytest.raises(NotFound, match="No increment 7"):
        next(client.events("7"))


def test_what_is_no_event_stream_is_an_error_that_says_so(scripted: Scripted) -> None:
    server = scripted(answer(200, {"page": "of a proxy"}, "text/html"))
    with Client(server.url) as client, pytest.raises(ClientError, match="no event stream came back"):
        next(client.events("7"))


# Uploads


def test_a_folder_is_packed_the_same_each_time_without_hidden_files(folder: Path) -> None:
    assert packed(folder) == packed(folder)
    with zipfile.ZipFile(io.BytesIO(packed(folder))) as archive:
        expected = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.png"))
        assert archive.namelist() == expected
        assert archive.read("dog/2.png") == (folder / "dog/2.png").read_bytes()
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


def test_an_archive_is_sent_as_it_is_in_pieces(scripted: Scripted, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096  # 1 MiB
    (tmp_path / "batch.tar.gz").write_bytes(content)
    received: list[bytes] = []
    server = scripted(answer(202, {"id": "7"}, bodies=received))
    sent: list[tuple[int, int]] = []
    with Client(server.url) as client:
        client.start_increment("a/b ü", tmp_path / "batch.tar.gz", on_upload=lambda *done: sent.append(done))
    assert received == [content]
    assert sent == [(end, len(content)) for end in range(CHUNK_BYTES, len(content) + 1, CHUNK_BYTES)]
    method, path, headers = server.requests[0]
    assert (method, path) == ("POST", "/v1/models/a%2Fb%20%C3%BC/increments")
    assert headers["content-type"] == "application/gzip"
    assert "transfer-encoding" not in headers


def test_a_refusal_in_the_middle_of_an_upload_is_heard(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "batch.zip").write_bytes(bytes(64 << 20))

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps({"detail": "At most 8 GiB."}).encode()
        head = (
            f"HTTP/1.1 413 Too Large\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        handler.wfile.write(head.encode() + body)
        handler.wfile.flush()
        handler.rfile.read(1 << 20)  # some of the body, then hang up
        handler.close_connection = True

    with Client(scripted(refuse).url) as client, pytest.raises((TooLarge, Unreachable)) as refused:
        client.start_increment("m", tmp_path / "batch.zip")
    assert isinstance(refused.value, TooLarge) or "broke" in str(refused.value)


@pytest.mark.parametrize(("name", "message"), [("nothing", "does not exist"), ("notes.txt", "neither a folder nor")])
def test_what_cannot_be_a_batch_is_refused_before_anything_is_sent(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(ClientError, match=message):
            client.start_increment("m", tmp_path / name)
        with pytest.raises(ClientError, match="holds no files"):
            client.start_increment("m", tmp_path / "empty")


# Errors and pages


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (409, Conflict), (412, PreconditionFailed), (413, TooLarge), (422, Invalid), (503, Unavailable)],
)
def test_a_problem_document_becomes_an_exception(scripted: Scripted, status: int, kind: type[Problem]) -> None:
    document = {"type": "/accrete/problems/so-and-so", "status": status, "detail": "Do this.", "classes": ["cat"]}
    server = scripted(answer(status, document, "application/problem+json"))
    with Client(server.url) as client, pytest.raises(kind, match=r"Do this\.") as problem:
        client.model("m")
    assert (problem.value.status, problem.value.kind) == (status, "so-and-so")
    assert problem.value.extra == {"classes": ["cat"]}


def test_an_error_page_of_something_else_is_reported_too(scripted: Scripted) -> None:
    server = scripted(answer(502, b"<h1>Bad Gateway</h1>", "text/html"))
    with Client(server.url) as client, pytest.raises(Unavailable, match="502 Bad Gateway: <h1>"):
        client.model("m")


def unavailable(**headers: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    return answer(503, {"detail": "Starting."}, "application/problem+json", **headers)


def test_what_may_be_repeated_is_sent_again_as_often_as_wished(scripted: Scripted) -> None:
    found, created = answer(200, {"name": "m"}), answer(201, {"id": "b"})
    limited = answer(429, {"detail": "Too many."}, "application/problem+json")
    server = scripted(unavailable(), limited, found, unavailable(), created, *[unavailable()] * 3)
    with Client(server.url, retries=2) as client:
        assert client.model("m")["name"] == "m"
        assert client.create_batch("m", idempotency_key="once")["id"] == "b"
        with pytest.raises(Unavailable, match="Starting"):
            client.model("m")
    assert len(server.requests) == 8


def test_what_may_not_be_repeated_is_sent_once(scripted: Scripted, folder: Path) -> None:
    server = scripted(*[unavailable()] * 3)
    with Client(server.url, retries=2) as client:
        with pytest.raises(Unavailable):
            client.create_batch("m")
        with pytest.raises(Unavailable):
            client.create_batch("m", folder, idempotency_key="once")
    with Client(server.url) as client, pytest.raises(Unavailable):
        client.model("m")
    assert len(server.requests) == 3


def test_the_service_says_how_long_to_wait(scripted: Scripted) -> None:
    with Client(scripted(unavailable(**{"Retry-After": "1"}), answer(200, {"name": "m"})).url, retries=1) as client:
        started = time.monotonic()
        client.model("m")
        assert time.monotonic() - started >= 1
    with Client(scripted(unavailable(**{"Retry-After": "7"})).url) as client, pytest.raises(Unavailable) as refused:
        client.model("m")
    assert refused.value.extra == {"retry_after": 7}


def test_a_service_that_starts_meanwhile_is_reached(scripted: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    def serve() -> None:
        time.sleep(0.4)
        with socket.create_server(("127.0.0.1", port)) as listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + b'{"name":"m"}')

    with ThreadPoolExecutor(1) as pool, Client(f"http://127.0.0.1:{port}", retries=5) as client:
        serving = pool.submit(serve)
        assert client.model("m")["name"] == "m"
        serving.result(60)


def test_a_service_that_is_not_there_is_named_with_the_way_to_start_it(scripted: Scripted) -> None:
    server = scripted()
    server.close()
    with Client(server.url) as client, pytest.raises(Unreachable, match=rf"{server.url} .*accrete up"):
        client.model("m")


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="no address"):
        Client(url)


def test_lists_are_read_page_after_page(scripted: Scripted) -> None:
    pages = [
        {"items": [{"name": "a"}, {"name": "b"}], "next_cursor": "a b"},
        {"items": [{"name": "c"}], "next_cursor": None},
    ]
    server = scripted(*(answer(200, page) for page in pages))
    with Client(server.url) as client:
        assert [model["name"] for model in client.models()] == ["a", "b", "c"]
    assert [path for _, path, _ in server.requests] == ["/v1/models", "/v1/models?cursor=a+b"]


def test_rolling_back_promotes_the_previous_version_only_if_nobody_else_did(scripted: Scripted) -> None:
    before = {"model": "m", "version": 3, "previous": 2}
    server = scripted(
        answer(200, before, ETag='"5"'), answer(200, {"model": "m", "version": 2, "previous": 3}), answer(200, before)
    )
    with Client(server.url) as client:
        assert client.rollback("m")["version"] == 2
    assert server.requests[1][0] == "PUT"
    assert server.requests[1][2]["if-match"] == '"5"'


def test_a_download_writes_the_files_of_a_version_and_nothing_beside_them(scripted: Scripted, tmp_path: Path) -> None:
    version: dict[str, Any] = {"files": {"version.json": {}, "../weights.safetensors": {}}}
    server = scripted(answer(200, version), answer(200, b"{}"), answer(200, b"\x00" * 1_000_000))
    with Client(server.url) as client:
        client.download("m", 3, tmp_path / "v3")
    assert (tmp_path / "v3" / "weights.safetensors").stat().st_size == 1_000_000
    assert {path.name for path in tmp_path.iterdir()} == {"v3"}


@pytest.mark.parametrize("again", [True, False])
def test_what_changes_nothing_is_asked_again_where_a_connection_breaks(again):
    answered = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"name":"m"}'
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            for is_last in (False, True):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answered)
                    if not is_last:
                        connection.recv(65536)  # a second request, that is never answered
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        serving = pool.submit(serve)
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            assert client.model("first")["name"] == "m"
            if again:
                assert client.model("second")["name"] == "m"
            else:
                with pytest.raises(Unreachable):
                    client.create_model("second")
                assert client.model("third")["name"] == "m"
        serving.result(60)
