"""The embedded service with its dashboard, and the system's Chromium, driven by Playwright."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

# The first ones keep Chromium from looking for hosts of its maker.
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--no-sandbox",
    "--disable-gpu",
]
expect.set_options(timeout=120_000)  # a training takes some seconds, on a machine with other work many more
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running service, started as a person does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    modest = {"ACCRETE_THREADS": "1", "ACCRETE_NICENESS": "0", "ACCRETE_DRAIN_SECONDS": "0"}
    program, home = Path(sys.executable).with_name("accrete"), tmp_path_factory.mktemp("home")
    command = [str(program), "up", "--port", "0", "--home", str(home)]
    with subprocess.Popen(command, env=kept | modest, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = next(match for line in process.stdout if (match := re.search(r"ready at (http://\S+)", line)))
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


@pytest.fixture(scope="session")
def dashboard(api: str) -> str:
    """The address of its dashboard: where a browser is sent."""
    sent = httpx.get(api, follow_redirects=False)
    assert sent.status_code == 307
    return sent.headers["Location"].rstrip("/")


@pytest.fixture(scope="module")  # its driver's event loop is in the way of tests that begin one of their own
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: Debian's package is chromium")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, dashboard: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of the width and colours that a test asks for; no fault on the console, no request to another host."""
    width, colours = cast("tuple[int, Literal['dark', 'light']]", getattr(request, "param", (1280, "light")))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colours)
    opened = context.new_page()
    opened.set_default_timeout(120_000)
    faults: list[str] = []
    opened.on(
        "console",
        lambda said: (
            faults.append(said.text) if said.type == "error" and "/uploads/" not in said.location["url"] else None
        ),
    )
    opened.on("pageerror", lambda error: faults.append(str(error)))
    here = (dashboard, dashboard.replace("http", "ws", 1), "data:", "blob:")
    opened.on("request", lambda sent: None if sent.url.startswith(here) else faults.append(f"asked {sent.url}"))
    yield opened
    context.close()
    assert faults == []
