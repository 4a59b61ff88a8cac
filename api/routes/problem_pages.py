"""The pages at the ``type`` of problem documents: what each type means, and what to do (RFC 9457 §3.1.1)."""

from html import escape
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse

from api.http.problem_kinds import KINDS, Kind
from api.http.problems import problems
from storage.errors import NotFound

router = APIRouter(prefix="/problems", tags=["problems"])
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = "body { font: 1rem/1.5 sans-serif; margin: 2rem auto; max-width: 45rem; padding: 0 1rem }"
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>
{body}</html>
"""


@router.get("", response_class=HTMLResponse)
async def list_problems() -> HTMLResponse:
    """List every type of problem, as a page for people."""
    items = "".join(
        f'<li><a href="problems/{name}">{name}</a> ({int(kind.status)}): {escape(kind.meaning)}</li>\n'
        for name, kind in KINDS.items()
    )
    return _page("Problems", f"<h1>Problems</h1>\n<ul>\n{items}</ul>\n")


@router.get("/{kind}", response_class=HTMLResponse, responses=problems(NotFound))
async def explain_problem(
    kind: Annotated[str, Path(description="Last part of a problem's type.", examples=["model-not-found"])],
) -> HTMLResponse:
    """Explain a type of problem, as a page for people."""
    if (found := KINDS.get(kind)) is None:
        raise NotFound(f"There is no problem of the type {kind[:100]!r}: /problems lists them.")
    return _page(kind, _text(kind, found))


def _text(name: str, kind: Kind) -> str:
    return (
        f"<h1>{name}</h1>\n<p>Status {int(kind.status)} {kind.status.phrase}. {escape(kind.meaning)}</p>\n"
        f'<p>{escape(kind.remedy)}</p>\n<p><a href="../problems">All problems</a></p>\n'
    )


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=title, style=_STYLE, body=body), headers=_HEADERS)
