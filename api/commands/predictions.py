"""`accrete predict` and `predictions`: the most probable classes of image files, and the record of them."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, Model, Url
from api.commands.tables import share, table

_FILES_PER_REQUEST = 16  # well below what a request may hold, in images and in bytes


def predict(
    model: Model,
    files: Annotated[list[Path], typer.Argument(help="Images.", exists=True, dir_okay=False)],
    *,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 3,
    version: Annotated[int | None, typer.Option(help="Another version than the current one.")] = None,
    reference: Annotated[str | None, typer.Option(help="Your own name for the request, kept with its record.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Classify images."""
    items: list[dict[str, Any]] = []
    with service(url) as client:
        for start in range(0, len(files), _FILES_PER_REQUEST):
            some = files[start : start + _FILES_PER_REQUEST]
            answer = client.predict(model, some, top_k=top_k, version=version, reference=reference)
            for file, ranked in zip(some, answer["predictions"], strict=True):
                item = {"file": str(file), "version": answer["version"], "id": answer["id"], "predictions": ranked}
                items.append(item)
    rows = [
        [item["file"], *(f"{found['label']} {share(found['probability'])}" for found in item["predictions"])]
        for item in items
    ]
    text = "\n".join("  ".join(row) for row in rows)
    emit({"model": model, "items": items} if as_json else None, text)


def predictions(
    model: Model,
    *,
    reference: Annotated[str | None, typer.Option(help="Only of requests that bore it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Records to show, the latest first.")] = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List what was predicted, when, and by which version, latest first."""
    with service(url) as client:
        items = list(islice(client.predictions(model, reference=reference), limit))
    rows = [
        [
            item["created_at"][:19],
            item["id"],
            item["version"],
            item["reference"] or "",
            ", ".join(f"{one[0]['label']} {share(one[0]['probability'])}" for one in item["predictions"][:3]),
            len(item["predictions"]),
        ]
        for item in items
    ]
    headings = ["when", "record", "version", "reference", "best classes", "images"]
    emit({"items": items} if as_json else None, table(headings, rows) if rows else "No predictions on record")
