"""`accrete up` as a person runs it: the real Redis, worker and API."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.test_supervisor import alive, eventually

COMMAND = [sys.executable, "-m", "api.commandline", "up", "--port", "0", "--json"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running service and its URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    command = [*COMMAND, "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGTERM)


def children(pid: int) -> dict[str, int]:
    """The supervisor's children by a word of their command."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        name = next((name for name in ("redis-server", "celery", "keeper") if name in command), "api")
        found[name] = int(child)
    return found


def test_the_service_starts_repairs_itself_refuses_a_second_and_ends_without_a_trace(
    service: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, url = service
    assert httpx.get(f"{url}/readyz").status_code == 200
    first = children(process.pid)
    assert set(first) == {"redis-server", "celery", "keeper", "api"}

    command = [*COMMAND, "--home", str(tmp_path / "home")]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith(f"error: {tmp_path / 'home'} is in use by process {process.pid}")

    os.kill(first["api"], signal.SIGKILL)
    assert eventually(lambda: not alive(first["api"]))
    assert eventually(lambda: answers(f"{url}/readyz"), seconds=30)

    last = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert not any(alive(pid) for pid in {*first.values(), *last.values()})


def answers(url: str) -> bool:
    """Whether there is an answer of 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
