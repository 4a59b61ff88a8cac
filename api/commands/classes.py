"""`accrete classes`: list and rename them."""

from typing import Annotated

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, Label, Model, Url
from api.commands.tables import MISSING, table

app = typer.Typer(help="List the classes of a model; rename them.")


@app.command("list")
def list_classes(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """List a model's classes: their task, and how many images of them are stored."""
    with service(url) as client:
        found = client.classes(model)
    rows = [
        [one["label"], MISSING if one["task"] is None else one["task"] + 1, one["train"], one["test"]]
        for one in found["classes"]
    ]
    emit(found if as_json else None, table(["class", "task", "train", "test"], rows))


@app.command("rename")
def rename_class(
    model: Model,
    label: Label,
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Rename a class, in all versions and at once; nothing is trained."""
    with service(url) as client:
        renamed = client.rename_class(model, label, name)
    emit(renamed if as_json else None, f"{label} is called {renamed['label']} from now on")
