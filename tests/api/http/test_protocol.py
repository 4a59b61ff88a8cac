"""Bodies on the wire: whatever a client offers or leaves out, what it declared is what is read, or it is told."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest

from tests.api.http.test_guarded_route import until_closed
from tests.api.worlds import World, class_zip, problem

OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
END = "Connection: close\r\n"


@contextmanager
def connected(http: httpx.Client) -> Iterator[socket.socket]:
    """A plain connection to the service."""
    with closing(socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=60)) as connection:
        yield connection


def head(method: str, path: str, *lines: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{''.join(lines)}\r\n".encode()


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}\r\n"


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def said(http: httpx.Client, *pieces: bytes) -> bytes:
    """What comes back for pieces sent one after the other, until the service closes."""
    with connected(http) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)  # so that they come one by one; the answer is the same if they do not
        return until_closed(connection)


@pytest.mark.parametrize(
    "offer",
    [
        OFFER,
        "Upgrade: h2c\r\nConnection: upgrade\r\n",
        "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0, h2c\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n",
    ],
    ids=["h2c", "short", "several", "websocket"],
)
@pytest.mark.parametrize("way", ["at once", "in pieces", "chunked"])
def test_a_body_behind_an_offer_to_upgrade_is_read(http, world: World, offer: str, way: str):
    body = class_zip("cat", "dog")
    framed, sent = ("Transfer-Encoding: chunked\r\n", chunked(body, 1000)) if way == "chunked" else (length(body), body)
    request = head("POST", f"/v1/models/{world.model()}/batches", offer, framed) + sent
    middle = len(request) - len(sent) // 2
    pieces = [request] if way == "at once" else [request[:30], request[30:middle], request[middle:]]
    with connected(http) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)
        connection.sendall(head("GET", "/livez", END))
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b'"images":6' in answer
    assert answer.count(b"HTTP/1.1 200 ") == 1  # the connection goes on


def test_requests_that_follow_one_another_may_all_offer_to_upgrade(http, world: World):
    bodies = [b'{"name": "%s"}' % world.model().encode() for _ in range(3)]
    requests = [
        head("POST", "/v1/models", OFFER, "Content-Type: application/json\r\n", length(body)) + body for body in bodies
    ]
    answer = said(http, b"".join(requests) + head("GET", "/livez", OFFER) + head("GET", "/livez", END))
    assert answer.count(b"HTTP/1.1 409 ") == 3  # read: the models are there
    assert answer.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_that_would_rather_speak_http_2_sends_its_archive(http, world: World, tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(class_zip("cat", "dog"))
    url = f"{http.base_url}/v1/models/{world.model()}/increments"
    command = ["curl", "-s", "--http2", "--noproxy", "*", "-F", f"data=@{archive}", url]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert '"status":"queued"' in answer


def test_a_connection_to_elsewhere_is_refused(http):
    answer = said(http, b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert http.get("/livez").status_code == 200


def test_who_waits_to_be_told_to_go_on_is_told_and_read(http, world: World):
    body = class_zip("cat", "dog")
    request = head("POST", f"/v1/models/{world.model()}/batches", OFFER, "Expect: 100-continue\r\n", length(body), END)
    with connected(http) as connection:
        connection.sendall(request.replace(b"Connection: close\r\n", b""))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body + head("GET", "/livez", END))
        answer = until_closed(connection)
    assert b'"images":6' in answer


# A batch is opened empty where nothing was announced, and nowhere else


@pytest.mark.parametrize("framing", ["", "Content-Length: 0\r\n"])
def test_a_batch_is_opened_empty_where_no_body_was_declared(http, world: World, framing: str):
    answer = said(http, head("POST", f"/v1/models/{world.model()}/batches", framing, END))
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b'"status":"open"' in answer


def test_a_body_that_was_announced_and_is_empty_opens_no_batch(http, world: World):
    model = world.model()
    answer = http.post(f"/v1/models/{model}/batches", content=iter([]))
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert "empty" in problem(answer, 422, "archive-unreadable")["detail"]


# Answers reach who is still sending


def test_who_is_refused_in_the_middle_of_a_body_gets_to_read_why(http, world: World):
    """The client writes all it has before it reads, as most do."""
    path = f"/v1/models/{world.model()}/nothing"
    with connected(http) as connection:
        connection.sendall(head("POST", path, "Content-Length: 16000000\r\n"))
        sending = threading.Thread(target=connection.sendall, args=(bytes(16_000_000),))
        sending.start()
        sending.join()
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
