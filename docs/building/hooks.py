"""What MkDocs calls while it builds the site: pages made from the code, links to the code, diagrams."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.building import diagrams, http, programs
from docs.building.sources import DECISIONS, ROOT, Sources, source_page

README = re.compile(r"<!-- README: (.+) -->")
_GUIDES = ROOT / "docs"


@cache
def reference() -> dict[str, str]:
    """Text of every page that is made from the code, by path."""
    document = http.openapi()
    return {
        http.ROUTES: http.routes(document),
        http.DOCUMENTS: http.documents(document),
        programs.CLIENT: programs.client(),
        programs.COMMANDS: programs.commands(),
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions in the navigation."""
    for group in config.nav or []:
        if "Decisions" in group:
            group["Decisions"] = [f"{DECISIONS}/index.md", *(f"{DECISIONS}/{path.name}" for path in _decisions())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from the code, the list of decisions, and the pages of source files that guides link to."""
    made = {**reference(), f"{DECISIONS}/index.md": _list_of_decisions()}
    sources = Sources()
    for file in files.documentation_pages():
        _mended(file.content_string, file.src_uri, sources)
    made |= {f"source/{path}.md": source_page(path) for path in sorted(sources.linked)}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put in parts of the README, mend links, draw diagrams."""
    path = page.file.src_uri
    if path.startswith("source/"):
        return markdown
    return diagrams.drawn(_mended(markdown, path, Sources()))


def _mended(text: str, page: str, sources: Sources) -> str:
    """The text with the sections of the README that it names, and with links that lead to pages of the site."""
    return README.sub(lambda named: sources.mend(readme_section(named[1]), page, origin=""), sources.mend(text, page))


def readme_section(title: str) -> str:
    """A section of the README without its title."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n", 1)[1].partition("\n## ")[0].strip()


def _decisions() -> list[Path]:
    return sorted((_GUIDES / DECISIONS).glob("[0-9]*.md"))


def _list_of_decisions() -> str:
    lines = ["# Decisions", "", "The reasons for choices that were hard, in the order they were made.", ""]
    for path in _decisions():
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)
