"""HTTP attacks on the API in a process of its own: each is refused, others are answered meanwhile, memory is level."""

import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from api.embedded import free_port
from tests.api.worlds import picture, redis_server
from tests.conftest import copy_sqlite

MEBIBYTE = 1 << 20
PICKLE = bytes.fromhex("80049525000000000000008c05706f736978948c0673797374656d9493948c02696494859452942e")


@dataclass
class Target:
    """The API, and what it takes."""

    port: int
    process: psutil.Process
    http: httpx.Client
    pictures: str  # where some may be sent

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        return int(self.process.memory_info().rss)

    def raw(self, request: bytes, *, ends: bool = False, seconds: float = 10.0) -> bytes:
        """What comes back for some bytes, until the other end closes; ``ends``: we say that nothing more comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as client:
            client.sendall(request)
            if ends:
                client.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
            return answer


@pytest.fixture(scope="module")
def target(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A service without a worker, with small limits."""
    home, port = tmp_path_factory.mktemp("home"), free_port("127.0.0.1")
    copy_sqlite(migrated_sqlite, home / "accrete.db")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    with redis_server(tmp_path_factory.mktemp("redis")) as redis_url:
        settings = {
            "ACCRETE_HOME": str(home),
            "ACCRETE_PORT": str(port),
            "ACCRETE_KEYS": "none",
            "ACCRETE_REDIS_URL": redis_url,
            "ACCRETE_MAX_REQUEST_BYTES": str(4 * MEBIBYTE),
            "ACCRETE_MAX_UPLOAD_BYTES": str(8 * MEBIBYTE),
        }
        process = subprocess.Popen([sys.executable, "-m", "api"], env=inherited | settings)
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        try:
            deadline = time.monotonic() + 60
            while not _answers(http):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert http.post("/v1/models", json={"name": "m", "image_size": 8}).status_code == 201
            batch = http.post("/v1/models/m/batches").json()["id"]
            yield Target(port, psutil.Process(process.pid), http, f"/v1/batches/{batch}/images?label=a")
        finally:
            http.close()
            process.terminate()
            assert process.wait(30) == 0


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def flood(parts: int) -> dict[str, Any]:
    """A form of many small parts."""
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n1\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return {"content": part * parts + b"--x--\r\n", "headers": headers}


def chunks(count: int, size: int) -> Iterator[bytes]:
    """A body that comes in pieces and says nothing of its length."""
    return (b"x" * size for _ in range(count))


ARCHIVES = "/v1/models/m/increments"
AS_JSON, PACKED = {"Content-Type": "application/json"}, {"Content-Encoding": "gzip"}


def posted(target: Target, path: str, **arguments: Any) -> int:
    """Status of the answer."""
    return target.http.post(path, **arguments).status_code


ATTACKS: dict[str, tuple[int, Callable[[Target], int]]] = {
    "a form of ten thousand parts": (413, lambda t: posted(t, ARCHIVES, **flood(10_000))),
    "a form of ten thousand pictures": (422, lambda t: posted(t, t.pictures, **flood(10_000))),
    "two hundred thousand chunks of a byte": (422, lambda t: posted(t, t.pictures, content=chunks(200_000, 1))),
    "pictures without end": (413, lambda t: posted(t, t.pictures, content=chunks(10_000, 65536))),
    "an archive without end": (413, lambda t: posted(t, ARCHIVES, content=chunks(10_000, 65536))),
    "JSON a hundred thousand deep": (
        413,
        lambda t: posted(t, "/v1/models", content=b'{"name":' + b"[" * 100_000, headers=AS_JSON),
    ),
    "a recipe a hundred thousand deep": (
        422,
        lambda t: posted(t, ARCHIVES, data={"recipe": '{"a":' * 100_000}, files={"data": PICKLE}),
    ),
    "a gigabyte of zeros, compressed": (
        415,
        lambda t: posted(t, t.pictures, content=gzip.compress(bytes(1 << 30), 1)[: 4 * MEBIBYTE - 1], headers=PACKED),
    ),
    "a pickle as a picture": (422, lambda t: posted(t, t.pictures, content=PICKLE)),
    "a pickle as an archive": (422, lambda t: posted(t, ARCHIVES, content=PICKLE)),
    "a pickle as JSON": (422, lambda t: posted(t, "/v1/models", content=PICKLE, headers=AS_JSON)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_gets_its_refusal_and_the_service_goes_on(target: Target, attack: str) -> None:
    expected, send = ATTACKS[attack]
    assert target.http.post(target.pictures, content=picture(1)).status_code == 201  # what is loaded once is loaded now
    before = target.resident
    assert send(target) == expected
    assert target.http.get("/livez").status_code == 200
    assert target.resident - before < 64 * MEBIBYTE


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: -1",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: five",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked, identity",
    ],
)
def test_a_length_that_cannot_be_is_refused(target: Target, head: str) -> None:
    request = f"POST /v1/models/m/predictions HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\nhello"
    answer = target.raw(request.encode(), ends=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert target.http.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/%252e%252e",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "/v1/images/..%2f..%2faccrete.db",
        "/v1/images/%2e%2e%2faccrete.db",
        "/v1/models/m/versions/1/files/..%2f..%2faccrete.db",
        "/v1/models/m/versions/1e9/metrics",
        "/v1/models/" + "a" * 5000,
        "/v1/batches/%ff%fe",
        "/v1/models/m/classes/..%2f/images",
        "//etc/passwd",
        "/v1/../accrete.db",
    ],
)
def test_a_path_leads_nowhere_but_where_it_should(target: Target, path: str) -> None:
    answer = target.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in {b"400", b"404", b"405", b"422"}
    assert b"SQLite format" not in answer
    assert b"root:" not in answer


def test_bodies_that_come_a_byte_at_a_time_hold_nobody_up(target: Target) -> None:
    """Fifty of them at once; the probe is answered within the time that one byte of theirs takes."""
    head = b"POST /v1/models/m/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    before, stopped = target.resident, threading.Event()
    clients = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(50)]
    for client in clients:
        client.sendall(head)

    def drip() -> None:
        while not stopped.wait(0.1):
            for client in clients:
                client.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        for _ in range(20):
            began = time.monotonic()
            assert target.http.get("/livez").status_code == 200
            assert time.monotonic() - began < 2
    finally:
        stopped.set()
        dripping.join()
        for client in clients:
            client.close()
    assert target.resident - before < 64 * MEBIBYTE


def test_headers_without_end_are_cut_off(target: Target) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200_000))
    before = target.resident
    try:
        answer = target.raw(request, ends=True)
    except ConnectionError:
        answer = b""
    assert not answer.startswith(b"HTTP/1.1 5")
    assert target.http.get("/livez").status_code == 200
    assert target.resident - before < 64 * MEBIBYTE
