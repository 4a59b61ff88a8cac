"""HTTP attacks on the API as shipped: each is refused, others are answered meanwhile, and memory never rises far."""

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

from api.process.embedded import free_port
from tests.api.worlds import picture, redis_server
from tests.conftest import copy_sqlite

MEBIBYTE = 1 << 20
MOST = 64 * MEBIBYTE  # that memory may rise by, at any time
LONGEST = 1.0  # seconds of the processor that the service may spend before it answers a probe; a tenth is measured
PICKLE = bytes.fromhex("80049525000000000000008c05706f736978948c0673797374656d9493948c02696494859452942e")


class Watch:
    """The highest memory of a process, and what it does before it answers a probe, while something goes on.

    A loop that is held up is held up by work. What the clock says depends on who else is on the machine.
    """

    def __init__(self, target: "Target") -> None:
        self._target, self._over = target, threading.Event()
        self.before = self.highest = target.resident
        self.waits: list[float] = []

    def __enter__(self) -> "Watch":
        self._threads = [threading.Thread(target=watch) for watch in (self._weigh, self._probe)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _weigh(self) -> None:
        while not self._over.wait(0.005):
            self.highest = max(self.highest, self._target.resident)

    def _probe(self) -> None:
        with httpx.Client(base_url=self._target.http.base_url, timeout=60) as http:
            while True:
                began = self._target.worked
                status = http.get("/livez").status_code
                self.waits.append(self._target.worked - began if status == 200 else float("inf"))
                if self._over.wait(0.02):
                    return

    def check(self) -> None:
        """Others were answered, and nothing was taken in that did not have to be."""
        assert max(self.waits) < LONGEST
        assert self.highest - self.before < MOST


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

    @property
    def worked(self) -> float:
        """Seconds of the processor."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def raw(self, request: bytes, *, ends: bool = False, seconds: float = 240.0) -> bytes:
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
    """A service without a worker, at its own limits."""
    home, port = tmp_path_factory.mktemp("home"), free_port("127.0.0.1")
    copy_sqlite(migrated_sqlite, home / "accrete.db")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    with redis_server(tmp_path_factory.mktemp("redis")) as redis_url:
        settings = {
            "ACCRETE_HOME": str(home),
            "ACCRETE_PORT": str(port),
            "ACCRETE_KEYS": "none",
            "ACCRETE_DRAIN_SECONDS": "0",
            "ACCRETE_REDIS_URL": redis_url,
        }
        process = subprocess.Popen([sys.executable, "-m", "api"], env=inherited | settings)
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        try:
            deadline = time.monotonic() + 240
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
            assert process.wait(240) == 0


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


PREDICTIONS, INFER = "/v1/models/m/predictions", "/v2/models/m/infer"
FULL = 16 * MEBIBYTE  # bytes of JSON that a prediction may have


def tensor(number: str) -> bytes:
    """An inference request of as many numbers as fit."""
    start, end = b'{"inputs": [{"name": "image", "shape": [1], "datatype": "FP32", "data": [', b"0]}]}"
    return start + (FULL - len(start) - len(end)) // (len(number) + 1) * f"{number},".encode() + end


def texts(text: str) -> bytes:
    """A prediction of as many base64 texts as fit."""
    start, end = b'{"images": [', b'""]}'
    return start + (FULL - len(start) - len(end)) // (len(text) + 3) * f'"{text}",'.encode() + end


def sending(path: str, body: bytes) -> Callable[[Target], int]:
    """An attack by one body of JSON."""
    return lambda target: posted(target, path, content=body, headers=AS_JSON)


BODIES: dict[str, tuple[int, str, bytes]] = {
    "sixty megabytes of JSON for a model": (413, "/v1/models", b'{"name": "' + b"a" * 60_000_000 + b'"}'),
    "sixty megabytes of JSON for a prediction": (413, PREDICTIONS, b"[" + b"0," * 30_000_000 + b"0]"),
    "sixty megabytes of JSON for an increment": (413, ARCHIVES, b"[" + b"0," * 30_000_000 + b"0]"),
    "a mebibyte of JSON lists": (413, "/v1/models", b"[" + b"[]," * 349_000 + b"[]]"),
    "a mebibyte of JSON keys": (
        413,
        "/v1/models",
        b'{"name": "a", "recipe": {' + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}}",
    ),
    "sixteen mebibytes of small texts": (413, PREDICTIONS, texts("")),
    "sixteen mebibytes of texts": (413, PREDICTIONS, texts("A" * 400)),
    "sixteen mebibytes of one text": (409, PREDICTIONS, texts("A" * (FULL - 20))),
    "sixteen mebibytes of small numbers": (413, INFER, tensor("0")),
    "sixteen mebibytes of numbers": (400, INFER, tensor("0.12345678901234")),
    "sixteen mebibytes of nothing": (422, PREDICTIONS, b" " * FULL),
    "sixteen mebibytes of depth": (413, INFER, b"[" * FULL),
    "a document that ends where its tensor would be": (413, INFER, b'{"inputs": ' + b"[" * 60_000_000),
    "JSON a hundred thousand deep": (413, "/v1/models", b'{"name":' + b"[" * 100_000),
    "a pickle as JSON": (422, "/v1/models", PICKLE),
}

ATTACKS: dict[str, tuple[int, Callable[[Target], int]]] = {
    "a form of ten thousand parts": (413, lambda t: posted(t, ARCHIVES, **flood(10_000))),
    "a form of ten thousand pictures": (422, lambda t: posted(t, t.pictures, **flood(10_000))),
    "two hundred thousand chunks of a byte": (422, lambda t: posted(t, t.pictures, content=chunks(200_000, 1))),
    "pictures without end": (413, lambda t: posted(t, t.pictures, content=chunks(10_000, 65536))),
    "JSON without end": (413, lambda t: posted(t, "/v1/models", content=chunks(10_000, 65536), headers=AS_JSON)),
    "a recipe a hundred thousand deep": (
        422,
        lambda t: posted(t, ARCHIVES, data={"recipe": '{"a":' * 100_000}, files={"data": PICKLE}),
    ),
    "a gigabyte of zeros, compressed": (
        415,
        lambda t: posted(t, t.pictures, content=gzip.compress(bytes(1 << 30), 1), headers=PACKED),
    ),
    "a gigabyte of zeros, compressed, as a tensor": (
        413,
        lambda t: posted(t, INFER, content=gzip.compress(bytes(1 << 30), 1), headers=PACKED),
    ),
    "a pickle as a picture": (422, lambda t: posted(t, t.pictures, content=PICKLE)),
    "a pickle as an archive": (422, lambda t: posted(t, ARCHIVES, content=PICKLE)),
    **{name: (status, sending(path, body)) for name, (status, path, body) in BODIES.items()},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_gets_its_refusal_while_others_are_answered(target: Target, attack: str) -> None:
    expected, send = ATTACKS[attack]
    assert target.http.post(target.pictures, content=picture(1)).status_code == 201  # what is loaded once is loaded now
    with Watch(target) as watch:
        assert send(target) == expected
    watch.check()


def test_the_description_is_made_beside_the_event_loop(target: Target) -> None:
    with Watch(target) as watch:
        assert target.http.get("/openapi.json").status_code == 200
    watch.check()


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
    """Fifty of them at once, which will take a day; the probe is answered all the same."""
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
            assert target.http.get("/livez").status_code == 200
    finally:
        stopped.set()
        dripping.join()
        for client in clients:
            client.close()
    assert target.resident - before < MOST


def test_headers_without_end_are_cut_off(target: Target) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200_000))
    before = target.resident
    try:
        answer = target.raw(request, ends=True)
    except ConnectionError:
        answer = b""
    assert not answer.startswith(b"HTTP/1.1 5")
    assert target.http.get("/livez").status_code == 200
    assert target.resident - before < MOST
