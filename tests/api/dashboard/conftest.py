"""The dashboard as a process of its own, beside a real API."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from api.process.embedded import free_port
from tests.api.worlds import eventually


class Dashboard:
    """A running dashboard: its address, and its process."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.url, self.process = url, process


@contextmanager
def dashboard_of(api: str, home: Path) -> Iterator[Dashboard]:
    """Serve the dashboard of an API."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "api.dashboard", "--api", api, "--port", str(port), "--home", str(home)]
    with subprocess.Popen(command) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            assert eventually(lambda: _answers(url))
            yield Dashboard(url, psutil.Process(process.pid))
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/key").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def dashboard(api_url: str, tmp_path: Path) -> Iterator[Dashboard]:
    """The dashboard of a service that asks for no keys."""
    with dashboard_of(api_url, tmp_path / "dashboard") as started:
        yield started
