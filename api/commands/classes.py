"""`accrete classes`: list, rename, drop and merge them."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from api.commands import completion
from api.commands.console import emit, service
from api.commands.increments import follow
from api.commands.options import AsJson, Label, Model, Promote, Url
from api.commands.tables import MISSING, table

Labels = Annotated[list[str], typer.Argument(help="The classes.", autocompletion=completion.classes)]
Wait = Annotated[bool, typer.Option(help="Follow the edit to its end.")]
app = typer.Typer(help="List the classes of a model; rename, drop and merge them.", no_args_is_help=True)


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


@app.command("drop")
def drop_classes(
    model: Model, labels: Labels, promote: Promote = None, wait: Wait = True, url: Url = None, as_json: AsJson = False
) -> None:
    """Make a version without some classes; nothing is trained, and their images stay."""
    _edit(model, drop=labels, merge={}, promote=promote, wait=wait, url=url, as_json=as_json)


@app.command("merge")
def merge_classes(
    model: Model,
    labels: Labels,
    into: Annotated[str, typer.Option(help="Name of the merged class: one of them, or a new one.")],
    promote: Promote = None,
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a version in which some classes are one; nothing is trained."""
    _edit(model, drop=[], merge={into: labels}, promote=promote, wait=wait, url=url, as_json=as_json)


def _edit(
    model: str,
    *,
    drop: Sequence[str],
    merge: Mapping[str, Sequence[str]],
    promote: str | None,
    wait: bool,
    url: str | None,
    as_json: bool,
) -> None:
    with service(url) as client:
        queued = client.edit(model, drop=drop, merge=merge, promote=promote)
        if wait:
            follow(client, queued["id"], as_json=as_json)
        else:
            emit(queued if as_json else None, f"queued: accrete watch {queued['id']}")
