"""`make screenshots`: pictures of the dashboard's pages, of digits that a service of its own has learned."""

import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import sync_playwright

from api.client.client import Client
from api.demo.__main__ import service
from api.demo.images import write_digits
from tests.browser.conftest import CHROMIUM, FLAGS

PAGES = {"models": "/", "model": "", "teach": "/teach", "compare": "/compare", "try": "/try", "history": "/history"}
SETTLED_SECONDS = 2.0  # charts are drawn by then
SIZES = ((1280, 800), (390, 800))


def main(folder: Path) -> None:
    """Write a picture of each page, in each size and in both colours, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, service(Path(name) / "home") as url, Client(url) as client:
        digits = write_digits(Path(name) / "digits")
        client.create_model("digits", image_size=16, channels=1, recipe={"preset": "quick"}, memory={"per_class": 10})
        for number, labels in enumerate(("012", "345", "67")):
            step = Path(name) / f"step {number}"
            step.mkdir()
            for label in labels:
                (step / label).symlink_to(digits / label)
            client.wait(client.start_increment("digits", step)["id"])
        _shoot(httpx.get(url, follow_redirects=False).headers["Location"].rstrip("/"), folder)


def _shoot(dashboard: str, folder: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for width, height in SIZES:
            for colours in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
                for name, path in PAGES.items():
                    page.goto(dashboard + (path if path == "/" else f"/models/digits{path}"))
                    page.wait_for_timeout(1000 * SETTLED_SECONDS)
                    page.screenshot(path=folder / f"{name}-{colours}-{width}.png", full_page=True)
                page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
