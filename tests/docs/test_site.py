"""The guides are built as a site without a broken link, and its pages load nothing from another host."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "use": "href"}


class Loaded(HTMLParser):
    """Addresses that a page loads by itself; a link that a reader follows is none."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        address = dict(attrs).get(LOADED.get(tag, ""))
        if address and not (tag == "link" and dict(attrs).get("rel") in {"canonical", "prev", "next"}):
            self.addresses.append(address)


def build(target, *options):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", target, *options]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_a_page_loads_only_files_of_the_site(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        for address in loaded.addresses:
            if page.name != "404.html":  # its addresses start at the root of a server
                assert (page.parent / address.partition("#")[0].partition("?")[0]).exists(), f"{page}: {address}"


def test_no_style_sheet_loads_from_another_host(site):
    for sheet in site.rglob("*.css"):
        addresses = re.findall(r"url\(\s*[\"']?([^)\"']+)|@import\s+[\"']([^\"']+)", sheet.read_text(encoding="utf-8"))
        assert [one for pair in addresses for one in pair if one.startswith(("http:", "https:", "//"))] == []


def test_diagrams_are_drawn_when_the_site_is_built(site):
    page = (site / "architecture.html").read_text(encoding="utf-8")
    assert page.count('<svg id="diagram-') == 4  # two diagrams in two themes
    assert 'class="mermaid"' not in page


def test_what_looks_like_an_attribute_list_stays_text(site):
    assert 'JSON object, e.g. {"epochs": 10}' in (site / "reference" / "http.html").read_text(encoding="utf-8")


def test_pages_link_to_pages_of_the_source_files_that_they_name(site):
    assert "source/storage/settings.py.html" in (site / "architecture.html").read_text(encoding="utf-8")
    assert "class Settings" in re.sub(
        r"<[^>]+>", "", (site / "source" / "storage" / "settings.py.html").read_text(encoding="utf-8")
    )
