"""`accrete push` and `accrete watch`: start an increment, and follow it to its end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, Model, Recipe, Strategy, Url, parsed_recipe

if TYPE_CHECKING:
    from api.client import Client


def push(
    model: Model,
    source: Annotated[Path, typer.Argument(help="Folder of class folders, or a zip or tar of one.")],
    *,
    create: Annotated[
        bool, typer.Option("--create", help="Create the model, with defaults, if there is none.")
    ] = False,
    strategy: Strategy = None,
    recipe: Recipe = None,
    promote: Annotated[str | None, typer.Option(help="auto or manual.")] = None,
    known_classes: Annotated[str | None, typer.Option(help="refuse, or rehearse to train on them again.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the increment to its end.")] = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload images of new classes and train the next version on them."""
    from api.connection import NotFound
    from api.progress import display

    chosen = parsed_recipe(recipe)
    with service(url) as client:
        if create:
            try:
                client.model(model)
            except NotFound:
                client.create_model(model)
        with display(as_json=as_json) as shown:
            increment = client.start_increment(
                model,
                source,
                strategy=strategy,
                recipe=chosen,
                promote=promote,
                known_classes=known_classes,
                on_upload=shown.uploaded,
            )
        if wait:
            _follow(client, increment["id"], as_json=as_json)
        else:
            emit(increment if as_json else None, f"queued: accrete watch {increment['id']}")


def watch(
    increment: Annotated[str, typer.Argument(help="Id of the increment.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Follow an increment to its end."""
    with service(url) as client:
        _follow(client, increment, as_json=as_json)


def _follow(client: "Client", increment_id: str, *, as_json: bool) -> None:
    """Show an increment to its end; one that does not succeed is an error."""
    from api.client import succeeded
    from api.progress import display, follow

    try:
        with display(as_json=as_json) as shown:
            increment = follow(client.events(increment_id), shown)
    except KeyboardInterrupt:
        typer.echo(f"The increment goes on without you: accrete watch {increment_id}", err=True)
        raise typer.Exit(130) from None
    succeeded(increment or client.increment(increment_id))
