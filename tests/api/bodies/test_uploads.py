"""Uploads on their way to disk: in bounded memory, and without a trace when they are cut off."""

import os
import re
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from struct import pack
from threading import Event, Thread

import httpx
import pytest
from sqlalchemy import func, select

from storage.database.tables import batches
from tests.api.worlds import SIZE, class_zip, eventually, problem
from tests.storage.packing import entry, local, whole_zip

GIGABYTE = 1_000_000_000
IMAGE_BYTES = 100_000


def noise_zip(size: int) -> Iterator[bytes]:
    """A stored zip of about so many bytes, made while it is read: two classes of noise under images' names."""
    noise = Random(0).randbytes(IMAGE_BYTES - 8)
    directory, offset, count = bytearray(), 0, size // IMAGE_BYTES
    for n in range(count):
        name, data = b"%s/%d.png" % ((b"cat", b"dog")[n % 2], n), pack("<Q", n) + noise
        crc = zlib.crc32(data)
        member = local(name, data, size=len(data), crc=crc)
        directory += entry(name, size=len(data), compressed=len(data), crc=crc, header=offset)
        offset += len(member)
        yield member
    end = whole_zip(b"", bytes(directory), count)  # its directory would begin at 0
    yield end[:-6] + pack("<LH", offset, 0)


@contextmanager
def api_process(settings, port: int) -> Iterator[tuple[httpx.Client, int]]:
    """`python -m api` in a process of its own; a client of it, and its id."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "ACCRETE_HOME": str(settings.home),
        "ACCRETE_PORT": str(port),
        "ACCRETE_KEYS": "none",
        "ACCRETE_DRAIN_SECONDS": "0",
        "ACCRETE_REDIS_URL": str(settings.redis_url),
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=240) as http:
            assert eventually(lambda: answers(http) or process.poll() is not None)
            yield http, process.pid
        process.terminate()
        assert process.wait(240) == 0
    finally:
        process.kill()
        process.wait()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as bound:
        return int(bound.getsockname()[1])


def anonymous_memory(pid: int) -> int:
    """Bytes of a process's memory that are no file's."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


class Watched:
    """The highest anonymous memory of a process while it is watched."""

    def __init__(self, pid: int) -> None:
        self.pid, self.highest, self.done = pid, 0, Event()

    def __enter__(self) -> "Watched":
        self.thread = Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            self.highest = max(self.highest, anonymous_memory(self.pid))

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_a_gigabyte_raises_the_memory_of_the_api_by_less_than_a_tenth_of_it(settings_for, tmp_path):
    settings = settings_for(tmp_path)
    with api_process(settings, free_port()) as (http, pid):
        for name in ("first", "second"):
            assert http.post("/v1/models", json={"name": name, "image_size": SIZE}).status_code == 201
        path = "/v1/models/{}/increments"
        assert http.post(path.format("first"), content=class_zip("cat", "dog")).status_code == 202  # warm
        before = anonymous_memory(pid)
        with Watched(pid) as memory:
            answer = http.post(path.format("second"), content=noise_zip(GIGABYTE))
        assert answer.status_code == 202, answer.text
        batch = http.get(f"/v1/batches/{answer.json()['batch_id']}").json()
        assert batch["images"] == GIGABYTE // IMAGE_BYTES
        assert memory.highest - before < 100_000_000
        assert not [path for path in settings.scratch.rglob("*") if path.is_file()]


def connect(http: httpx.Client) -> socket.socket:
    """A plain connection to the service."""
    connection = socket.create_connection((http.base_url.host, http.base_url.port or 80))
    connection.settimeout(10)
    return connection


@pytest.mark.parametrize("kind", ["raw", "chunked", "form"])
@pytest.mark.parametrize("route", ["increments", "batches"])
def test_an_upload_cut_off_in_the_middle_leaves_no_batch_and_no_file(http, world, route, kind):
    content, blobs = class_zip("cat", "dog", each=200), set(world.blobs.digests())
    model = world.model()
    with world.database.read() as connection:
        before = connection.scalar(select(func.count()).select_from(batches))
    part = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n' if kind == "form" else b""
    headers = [f"POST /v1/models/{model}/{route} HTTP/1.1", "Host: localhost"]
    headers += ["Content-Type: multipart/form-data; boundary=x"] if kind == "form" else []
    if kind == "chunked":
        headers += ["Transfer-Encoding: chunked"]
        body = b"%x\r\n" % len(content) + content + b"\r\n"  # whole, but without the chunk that ends it
    else:
        headers += [f"Content-Length: {len(part) + len(content) + 10}"]
        body = part + content
    with connect(http) as client:
        client.sendall("\r\n".join([*headers, "", ""]).encode() + body)
        assert eventually(lambda: world.scratch)
    assert eventually(lambda: not world.scratch)
    with world.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(batches)) == before
    assert http.get(f"/v1/models/{model}/increments").json()["items"] == []
    assert set(world.blobs.digests()) == blobs


def test_a_form_without_its_closing_boundary_is_not_whole(http, world):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n' + class_zip("cat", "dog") + b"\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post(f"/v1/models/{world.model()}/increments", content=body, headers=headers)
    assert "cut off" in problem(answer, 422, "batch-invalid")["detail"]


@pytest.mark.parametrize(
    "length", ["-1", "x", "1e3", "0x10", "5, 6", "9" * 30, "9" * 5000, "+5", ""], ids=lambda length: length[:30]
)
def test_a_lying_content_length_costs_nothing(http, world, length):
    with connect(http) as client:
        client.sendall(f"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        answer = client.recv(65536)
    assert re.match(rb"HTTP/1.1 4\d\d ", answer) or answer == b""
    assert http.get("/livez").status_code == 200


def test_who_asks_before_sending_is_told_at_once_that_it_is_too_much(http, world):
    request = (
        f"POST /v1/models/{world.model()}/increments HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {1 << 40}\r\nExpect: 100-continue\r\n\r\n"
    )
    with connect(http) as client:
        client.sendall(request.encode())
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
