"""`accrete strategies` and `accrete audit`: the strategies to choose from, and who asked for which change."""

import json
from itertools import islice
from typing import Annotated

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, Url
from api.commands.tables import MISSING, table


def strategies(url: Url = None, as_json: AsJson = False) -> None:
    """List the strategies; --json also gives each one's explanation, formula and recipe."""
    with service(url) as client:
        items = list(client.strategies())
    rows = [[item["name"], item["title"], item["source"]] for item in items]
    emit({"items": items} if as_json else None, table(["strategy", "title", "source"], rows))


def audit(
    limit: Annotated[int, typer.Option(min=1, help="Entries to show, the latest first.")] = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List who asked for which change, latest first; for administrators."""
    with service(url) as client:
        items = list(islice(client.audit(), limit))
    rows = [
        [
            item["created_at"][:19],
            item["key_name"] or MISSING,
            item["client"] or MISSING,
            item["action"],
            item["path"],
            item["status"] if item["status"] is not None else MISSING,
            "" if item["change"] is None else json.dumps(item["change"], ensure_ascii=False),
        ]
        for item in items
    ]
    headings = ["when", "key", "from", "action", "path", "status", "change"]
    emit({"items": items} if as_json else None, table(headings, rows) if rows else "No changes yet")
