"""Mermaid diagrams drawn when the site is built, so that its pages load no script for them."""

import re
from functools import cache
from zlib import crc32

import mermaidx

FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
THEMES = {"light": "neutral", "dark": "dark"}  # the site's and Mermaid's names


def drawn(text: str) -> str:
    """The text of a page with its diagrams as SVG; style sheets show the one of the reader's theme."""
    return FENCE.sub(lambda found: "".join(_picture(found[1], theme) for theme in THEMES) + "\n", text)


@cache
def _picture(source: str, theme: str) -> str:
    """A diagram in one theme; its ids are its own, since a page may hold several."""
    svg = mermaidx.render(source, theme=THEMES[theme]).svg()
    named = svg.replace("my-svg", f"diagram-{crc32(source.encode()):x}-{theme}")
    return f'<div class="diagram diagram--{theme}">{" ".join(named.split())}</div>'
