"""How long an idle connection is kept: longer than the proxies before a service keep it."""

import socket
import subprocess
import sys
import time

import httpx
import pytest

from api.__main__ import configuration
from api.app import create_app
from api.process.embedded import environment, free_port, renewed
from storage.settings import Settings
from tests.api.worlds import eventually

PROXIES = {"nginx": 60, "AWS ALB": 60, "Azure Front Door": 60, "HAProxy (http-keep-alive)": 60}  # seconds idle


def test_a_connection_is_kept_longer_than_proxies_do():
    settings = Settings()
    assert configuration(create_app(settings), settings).timeout_keep_alive > max(PROXIES.values())


@pytest.fixture
def served(settings_for, tmp_path):
    """The API in a process of its own, which keeps connections for a second."""
    settings = renewed(settings_for(tmp_path, keep_alive_seconds=1), port=free_port("127.0.0.1"))
    process = subprocess.Popen([sys.executable, "-m", "api"], env=environment(settings) | {"PATH": "/usr/bin:/bin"})
    try:
        url = f"http://127.0.0.1:{settings.port}"
        assert eventually(lambda: answers(url))
        yield settings
    finally:
        process.terminate()
        process.wait()


def answers(url):
    try:
        return httpx.get(f"{url}/livez", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def test_a_setting_says_how_long(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        began = time.monotonic()
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while piece := connection.recv(65536):  # until it is closed from the other side
            received += piece
        assert received.startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began > 0.9
