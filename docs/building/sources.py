"""Links from the guides to files of the source code: the site has a page of each file that a guide names."""

import ast
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDES = "docs"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]+)?(?=\))")
BUILDING = f"{GUIDES}/building"  # source code, beside the guides
DECISIONS = "decisions"
LANGUAGES = {".py": "python", ".yml": "yaml", ".toml": "toml", ".sh": "bash", ".ipynb": "json", ".md": "markdown"}


@dataclass
class Sources:
    """The files that the guides link to and that are no guides, by their paths from the root."""

    linked: set[str] = field(default_factory=set)

    def mend(self, text: str, page: str, *, origin: str | None = None) -> str:
        """The text of a page with links that lead to pages of the site.

        ``page`` is the page's path in the guides. ``origin`` is the folder that the links start from, where it is not
        the page's own: the README's links start from the root.
        """
        start = posixpath.join(GUIDES, posixpath.dirname(page)) if origin is None else origin

        def mended(link: re.Match[str]) -> str:
            target = posixpath.normpath(posixpath.join(start, link[1]))
            return posixpath.relpath(self._page_of(target), posixpath.dirname(page) or ".") + (link[2] or "")

        return LINK.sub(mended, text)

    def _page_of(self, target: str) -> str:
        """Path of the page about a file or folder."""
        if target == f"{GUIDES}/{DECISIONS}":
            return f"{DECISIONS}/index.md"
        if target.startswith(f"{GUIDES}/") and not target.startswith(BUILDING):
            return posixpath.relpath(target, GUIDES)
        if not (ROOT / target).exists():
            return target  # the build names what leads nowhere
        self.linked.add(target)
        return f"source/{target}.md"


def source_page(path: str) -> str:
    """The page of a file: its text; of a folder: its files with the first lines of their docstrings."""
    at = ROOT / path
    hidden = "---\nsearch:\n  exclude: true\n---\n"
    if at.is_dir():
        files = sorted(file for file in at.iterdir() if file.suffix == ".py")
        rows = [f"| `{file.name}` | {_first_line(file)} |" for file in files]
        return f"{hidden}# {path}/\n\n" + "\n".join(["| file | |", "|---|---|", *rows]) + "\n"
    fence = "````" if at.suffix == ".md" else "```"
    return f"{hidden}# {path}\n\n{fence}{LANGUAGES.get(at.suffix, 'text')}\n{at.read_text(encoding='utf-8')}\n{fence}\n"


def _first_line(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].replace("|", "\\|")
