"""The asynchronous client: it is the other one, and neither blocks the event loop nor leaves anything open."""

import asyncio
import importlib.util
import inspect
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import accrete
from accrete import AsyncClient, BatchStream, Client, Conflict, IncrementFailed, NotFound, Unreachable
from api.client.packing import OnUpload
from tests.api.servers import Scripted, answer, event, stream
from tests.api.worlds import class_zip, picture

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "api" / "client"
SCRIPT = ROOT / ".ci" / "async_client.py"


def methods(kind: type) -> dict[str, Any]:
    """The public methods of a client, and __init__."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_") or name == "__init__"}


def parameters(method: Any) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(method).parameters.values()]


# It is written from the other one


def test_it_is_what_make_types_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True)
    for file in tmp_path.glob("*.py"):
        assert (CLIENT / "asynchronous" / file.name).read_text() == file.read_text(), "run `make types`"
    by_hand = {"__init__.py", "connection.py", "sending.py"}
    there = {file.name for file in (CLIENT / "asynchronous").glob("*.py")}
    assert there == {file.name for file in tmp_path.glob("*.py")} | by_hand, "remove what has no twin any more"


def test_both_clients_have_the_same_methods_with_the_same_arguments_and_words() -> None:
    ours, theirs = methods(AsyncClient), methods(Client)
    assert ours.keys() == theirs.keys()
    for name, method in theirs.items():
        assert parameters(ours[name]) == parameters(method), name
        assert inspect.getdoc(ours[name]) == inspect.getdoc(method), name


def test_each_method_is_awaited_or_read_in_a_loop() -> None:
    for name, method in methods(AsyncClient).items():
        returns = str(inspect.signature(method).return_annotation)
        is_loop = returns.startswith("collections.abc.AsyncGenerator")
        assert is_loop == ("Iterator" in str(inspect.signature(methods(Client)[name]).return_annotation)), name
        assert inspect.iscoroutinefunction(method) != (is_loop or name == "__init__"), name


def script() -> ModuleType:
    """The module that writes the client."""
    spec = importlib.util.spec_from_file_location("async_client", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["async_client"] = module
    spec.loader.exec_module(module)
    return module


SOURCE = """\
from api.client.connection import Connection
from api.client.files import encoded


class ThingCalls:
    _connection: Connection

    def things(self) -> Iterator[str]:
        return self._connection.pages("/é")

    def first(self) -> str:
        {body}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "return self._connection.request('GET').text  # é",
            "return (await self._connection.request('GET')).text  # é",
        ),
        ("return [one for one in self.things()][0]", "return [one async for one in self.things()][0]"),
        ("return encoded([b''])[0]", "return (await asyncio.to_thread(encoded, [b'']))[0]"),
        ("return self.first()", "return await self.first()"),
    ],
)
def test_what_has_to_be_awaited_is(tmp_path: Path, body: str, expected: str) -> None:
    (tmp_path / "things.py").write_text(SOURCE.format(body=body))
    writer = script()
    text = writer.Twin("things", (tmp_path / "things.py").read_bytes(), writer.Sources.read(tmp_path)).source()
    assert expected in text
    assert "class AsyncThingCalls:" in text
    assert "_connection: AsyncConnection" in text
    assert "def things(self) -> AsyncGenerator[str, None]:" in text
    assert "async def first(self) -> str:" in text


@pytest.mark.parametrize(
    "body",
    [
        "return list(self.things())[0]",
        "return next(self.things())",
        "yield from self.things()",
        "return Path().read_text()",
    ],
)
def test_what_has_no_twin_is_refused_with_its_place(tmp_path: Path, body: str) -> None:
    (tmp_path / "things.py").write_text(SOURCE.format(body=body))
    writer = script()
    twin = writer.Twin("things", (tmp_path / "things.py").read_bytes(), writer.Sources.read(tmp_path))
    with pytest.raises(
        writer.Untranslatable, match=r"things\.py:1[12]: .*(in a loop|a loop instead|api\.client\.files)"
    ):
        twin.source()


# Against the real API


async def pieces(content: bytes, *, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        await asyncio.sleep(0)
        yield content[start : start + size]


def test_a_model_is_taught_from_a_stream_followed_and_asked_at_the_same_time(api_url: str, tmp_path: Path) -> None:
    content = class_zip("cat", "dog")
    sent: list[tuple[int, int]] = []
    (tmp_path / "1.png").write_bytes(picture(1))

    async def way() -> None:
        async with AsyncClient(api_url) as client:
            await asyncio.gather(*(client.create_model(name, image_size=8) for name in ("a", "b", "c")))
            assert {model["name"] async for model in client.models()} == {"a", "b", "c"}
            source = BatchStream(pieces(content), length=len(content))
            batch = await client.create_batch("a", source, on_upload=lambda *done: sent.append(done))
            assert [count["label"] for count in batch["classes"]] == ["cat", "dog"]
            open_batch = await client.create_batch("b")
            assert len(await client.add_images(open_batch["id"], "cat", [tmp_path / "1.png"])) == 1
            increment = await client.start_increment("a", batch_id=batch["id"])
            following = asyncio.create_task(client.wait(increment["id"]))
            streamed = await client.start_increment("c", BatchStream(pieces(content)))  # of unknown length
            assert streamed["status"] == "queued"
            await client.cancel(increment["id"])
            with pytest.raises(IncrementFailed, match="cancelled"):
                await following
            with pytest.raises(NotFound, match="nowhere"):
                await client.model("nowhere")
            with pytest.raises(Conflict):
                await client.predict("a", [tmp_path / "1.png"])

    asyncio.run(way())
    assert sent[-1] == (len(content), len(content))


# Uploads and the event loop


class Slow:
    """A source that blocks for each of its pieces, and notes that it was closed."""

    content_type, length = "application/zip", None

    def __init__(self, count: int, *, seconds: float) -> None:
        self.count, self.seconds, self.closed = count, seconds, False

    def chunks(self, on_upload: OnUpload | None) -> Iterator[bytes]:
        try:
            for _ in range(self.count):
                time.sleep(self.seconds)
                yield b"piece"
        finally:
            self.closed = True


def test_the_event_loop_goes_on_while_files_are_read(scripted: Scripted) -> None:
    source = Slow(3, seconds=0.2)

    async def way() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        def chunked(handler: Any) -> None:
            while int(handler.rfile.readline(), 16):
                handler.rfile.readline()
            answer(201, {"id": "b"})(handler)

        async with AsyncClient(scripted(chunked).url) as client:
            ticking = asyncio.create_task(tick())
            assert (await client.create_batch("m", source))["id"] == "b"
            ticking.cancel()
        return ticks

    assert asyncio.run(way()) > 20
    assert source.closed


@asynccontextmanager
async def client_of_a_stalled_service() -> AsyncIterator[AsyncClient]:
    """The client of a service that takes a connection and reads a little, until the client goes away."""
    # While nothing is read, the loop has no reference to a connection: it would be collected, and so closed.
    held: list[object] = []

    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append((asyncio.current_task(), reader, writer))
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(stalled, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with AsyncClient(f"http://{host}:{port}") as client:
        yield client
    server.close()


def connections(client: AsyncClient) -> list[Any]:
    """The sockets that a client has open."""
    found: list[Any] = client._connection._http._transport._pool.connections  # type: ignore[attr-defined]
    return found


def test_a_service_that_is_slow_to_read_holds_up_the_sender_and_a_cancelled_upload_leaves_nothing_open() -> None:
    made, closed = 0, False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made, closed
        try:
            while True:
                yield bytes(1 << 20)
                made += 1
        finally:
            closed = True

    async def way() -> None:
        async with client_of_a_stalled_service() as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.create_batch("m", BatchStream(endless())), 1.0)
            assert closed
            assert made < 32  # what the buffers of the sockets hold
            assert connections(client) == []

    asyncio.run(way())


def test_a_cancelled_upload_of_files_closes_them() -> None:
    source = Slow(1000, seconds=0.02)

    async def way() -> None:
        async with client_of_a_stalled_service() as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.create_batch("m", source), 0.5)
            assert source.closed
            assert connections(client) == []

    asyncio.run(way())


def test_following_can_be_cancelled_and_a_loop_be_left(scripted: Scripted) -> None:
    first = event(1, "status", status="running")
    silent = stream(first, *[": ping\n\n"] * 20, complete=True, pause_seconds=0.05)
    server = scripted(silent, silent)

    async def way() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.wait("7"), 0.3)
            assert connections(client) == []
            events = client.events("7")
            async for one in events:
                assert one.id == "1"
                break
            await events.aclose()
            assert connections(client) == []

    asyncio.run(way())


def test_a_service_that_is_not_there_is_named(scripted: Scripted) -> None:
    server = scripted()
    server.close()

    async def way() -> None:
        async with AsyncClient(server.url) as client:
            await client.model("m")

    with pytest.raises(Unreachable, match="accrete up"):
        asyncio.run(way())


def test_the_package_exports_it() -> None:
    assert accrete.AsyncClient.__module__ == "api.client.asynchronous.client"
