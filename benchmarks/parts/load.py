"""Requests from a process of its own: `python -m benchmarks.parts.load FOLDER`, which `Load` makes.

Closed loop: so many connections, each asks again at once. Open loop: requests arrive at random times at a given rate
whether or not earlier ones were answered, and their time counts from their arrival. The client speaks no more of
HTTP/1.1 than servers answer here (Content-Length), so that it takes little of the processor it shares with them.
"""

import asyncio
import base64
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import cast

IDLE_SECONDS = 3  # after which a connection is not used again: servers close theirs after 5


@dataclass(frozen=True)
class Request:
    """One of the requests that are sent, in turn."""

    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """What is sent where, how, and for how long."""

    port: int
    path: str
    requests: list[Request]
    seconds: float
    connections: int = 1  # of a closed loop; the most of an open one
    rate: float | None = None  # requests a second of an open loop
    keep_bodies: bool = False

    def run(self) -> "Outcome":
        """Send it from another process."""
        return self.start().result()

    def start(self) -> "Running":
        """The same without waiting for its end."""
        folder = Path(tempfile.mkdtemp(prefix="accrete-load-"))
        described = asdict(self)
        for request in described["requests"]:
            request["body"] = base64.b64encode(request["body"]).decode()
        (folder / "plan.json").write_text(json.dumps(described))
        command = [sys.executable, "-m", "benchmarks.parts.load", str(folder)]
        return Running(subprocess.Popen(command), folder)


@dataclass
class Running:
    """A load that is under way."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def result(self) -> "Outcome":
        """What came of it, once it has ended."""
        if self.process.wait():
            raise SystemExit("the load could not be sent")
        outcome = Outcome(**json.loads((self.folder / "outcome.json").read_text()))
        shutil.rmtree(self.folder)
        return outcome


@dataclass
class Outcome:
    """What was answered."""

    answered: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the client
    statuses: dict[str, int] = field(default_factory=dict)
    broken: int = 0  # connections that ended before an answer
    times: list[float] = field(default_factory=list)  # seconds of each answer, in the order they came
    moments: list[float] = field(default_factory=list)  # when each came, by time.monotonic()
    bodies: list[str] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)  # which of the requests each body answers

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200."""
        return self.broken + sum(count for status, count in self.statuses.items() if status != "200")

    def milliseconds(self, percent: int) -> float:
        """A percentile of the times."""
        return 1000 * quantiles(self.times, n=100)[percent - 1]


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self.is_open = False
        self.used_at = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        self._transport, self.is_open = cast("asyncio.Transport", transport), True

    def connection_lost(self, _error: Exception | None) -> None:
        """Whoever waits hears of it."""
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        """Gather an answer."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) >= end + 4 + length and self._answer is not None:
            body = bytes(self._received[end + 4 : end + 4 + length])
            del self._received[: end + 4 + length]
            self._answer.set_result((int(head[9:12]), body))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


class Sender:
    """Sends a load and keeps the tally."""

    def __init__(self, load: Load) -> None:
        """Write the requests' bytes once and for all."""
        self.load, self.outcome = load, Outcome()
        self._messages = [self._message(request) for request in load.requests]
        self._count = 0
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(load.connections)

    async def run(self) -> Outcome:
        """Send all of it."""
        began, cpu = time.monotonic(), time.process_time()
        end = began + self.load.seconds
        if self.load.rate is None:
            await asyncio.gather(*(self._ask_on(end) for _ in range(self.load.connections)))
        else:
            await self._arrive(began, end, self.load.rate)
        self.outcome.seconds, self.outcome.cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        return self.outcome

    async def _ask_on(self, end: float) -> None:
        while time.monotonic() < end:
            await self._ask(time.monotonic())

    async def _arrive(self, began: float, end: float, rate: float) -> None:
        chance, arrival, tasks = random.Random(1), began, set()
        while (arrival := arrival + chance.expovariate(rate)) < end:
            await asyncio.sleep(max(arrival - time.monotonic(), 0))
            task = asyncio.ensure_future(self._ask(arrival))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _ask(self, since: float) -> None:
        number = self._count % len(self._messages)
        message = self._messages[number]
        self._count += 1
        async with self._room:
            try:
                connection = self._take_idle() or await self._connect()
                status, body = await connection.ask(message)
            except OSError:
                self.outcome.broken += 1
                return
            now = connection.used_at = time.monotonic()
            self._idle.append(connection)
        self.outcome.answered += 1
        self.outcome.times.append(now - since)
        self.outcome.moments.append(now)
        self.outcome.statuses[str(status)] = self.outcome.statuses.get(str(status), 0) + 1
        if self.load.keep_bodies:
            self.outcome.bodies.append(body.decode())
            self.outcome.asked.append(number)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.monotonic() - connection.used_at < IDLE_SECONDS:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self.load.port)
        return connection

    def _message(self, request: Request) -> bytes:
        headers = {"Host": f"127.0.0.1:{self.load.port}", "Content-Type": request.media_type}
        headers |= {"Content-Length": str(len(request.body))} | request.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.load.path} HTTP/1.1\r\n{lines}\r\n".encode() + request.body


def main() -> None:
    """Send the load that a folder describes, and leave there what came of it."""
    import uvloop  # as the servers do

    folder = Path(sys.argv[1])
    described = json.loads((folder / "plan.json").read_text())
    requests = [Request(base64.b64decode(one.pop("body")), **one) for one in described.pop("requests")]
    load = Load(requests=requests, **described)

    async def send() -> Outcome:
        return await Sender(load).run()

    (folder / "outcome.json").write_text(json.dumps(asdict(uvloop.run(send()))))


if __name__ == "__main__":
    main()
