"""The embedded service as a user starts it, for the tests of the whole way."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from api.client.client import Client
from api.client.documents import Increment
from tests.patterns import QUICK, SIZE, write_zip

START_SECONDS = STOP_SECONDS = 240.0  # a few, where nobody else wants the processor
# Networks this small are no faster on two threads, and several times slower where another process wants a processor.
# Other tests do, and training would yield to them.
# No proxy has to notice that a service ends: `tests/api/process/test_ending.py` is for the time to drain.
# The dashboard has tests of its own.
MODEST = {
    "ACCRETE_THREADS": "1",
    "ACCRETE_NICENESS": "0",
    "ACCRETE_DRAIN_SECONDS": "0",
    "ACCRETE_DASHBOARD_PORT": "0",
}
HASTY = {  # so that a fault is noticed, and gone on from, within seconds
    "ACCRETE_LEASE_SECONDS": "8",  # a machine that stands still for five is no crash
    "ACCRETE_HEARTBEAT_SECONDS": "0.5",
    "ACCRETE_SWEEP_SECONDS": "0.5",
    "ACCRETE_CHECKPOINT_SECONDS": "0",
}


@dataclass
class Service:
    """`accrete up` in a process of its own, on a free port."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    directory: Path | None = None  # the working directory

    def start(self) -> None:
        """Start it and wait until it says where it is."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("accrete"), "up", "--home", self.home, "--port", "0"],
            env=inherited | MODEST | dict(self.environment),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(r"http://[\d.]+:\d+", "".join(self.lines))):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the service did not start:\n{''.join(self.lines)}")
            time.sleep(0.05)
        self.url = found.group()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def stop(self) -> int:
        """Stop it as Ctrl-C does; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)

    def log(self, part: str) -> str:
        """What a part has logged."""
        return (self.home / "logs" / f"{part}.log").read_text()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with its embedded parts, shared by all tests that leave it as they found it."""
    started = Service(tmp_path_factory.mktemp("home"))
    started.start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """A client of the shared service."""
    with Client(service.url) as connected:
        yield connected


@dataclass
class Grower:
    """A model of its own for a test, taught class by class."""

    client: Client
    folder: Path
    name: str

    def push(self, *labels: str, **options: object) -> Increment:
        """Send images of some classes; the increment is queued on return."""
        archive = write_zip(self.folder / f"{uuid4().hex}.zip", labels)
        return self.client.start_increment(self.name, archive, **options)  # type: ignore[arg-type]

    def learn(self, *labels: str, **options: object) -> Increment:
        """Send images of some classes and wait for the version."""
        return self.client.wait(self.push(*labels, **options)["id"])


@pytest.fixture
def grower(client: Client, tmp_path: Path) -> Grower:
    """A fresh model with rehearsal, made for the patterns."""
    name = f"model-{uuid4().hex[:8]}"
    client.create_model(name, image_size=SIZE, recipe=QUICK, memory={"per_class": 10})
    return Grower(client, tmp_path, name)
