"""`accrete push`, `watch`, `increments`, `cancel` and `retry`: start an increment, follow it, stop it, try it again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.console import emit, failure, service, warn
from api.commands.options import AsJson, IncrementId, KnownClasses, Model, Promote, Recipe, Strategy, Url, parsed_recipe
from api.commands.sending import prepared, tell_vanished
from api.commands.tables import MISSING, table
from api.commands.wording import as_commands

if TYPE_CHECKING:
    from api.client.client import Client


def push(
    model: Model,
    source: Annotated[Path | None, typer.Argument(help="Folder of class folders, or a zip or tar of one.")] = None,
    *,
    batch: Annotated[str | None, typer.Option(help="Id of a batch that was collected before, instead.")] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the model, with defaults, if there is none.")
    ] = False,
    strategy: Strategy = None,
    recipe: Recipe = None,
    promote: Promote = None,
    known_classes: KnownClasses = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow the increment to its end.")] = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload images of new classes and train the next version on them."""
    from api.commands.progress import display

    if (source is None) == (batch is None):
        raise failure("give either a folder or archive, or --batch")
    if dry_run and source is None:
        raise failure("--dry-run says what is in a folder or archive: give one")
    chosen = parsed_recipe(recipe)
    sent = None if source is None else prepared(source, as_json=as_json, dry_run=dry_run)
    if dry_run:
        return
    with service(url) as client:
        if create:
            _ensure_model(client, model)
        with display(as_json=as_json) as shown:
            increment = client.start_increment(
                model,
                sent,
                batch_id=batch,
                strategy=strategy,
                recipe=chosen,
                promote=promote,
                known_classes=known_classes,
                on_upload=shown.uploaded,
            )
        tell_vanished(sent)
        warn(map(as_commands, increment.get("notices", [])))
        if wait:
            follow(client, increment["id"], as_json=as_json)
        else:
            emit(increment if as_json else None, f"queued: accrete watch {increment['id']}")


def _ensure_model(client: "Client", model: str) -> None:
    from api.client.connection import NotFound

    try:
        client.model(model)
    except NotFound:
        client.create_model(model)


def increments(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """List a model's increments, latest first."""
    with service(url) as client:
        items = list(client.increments(model))
    headings = ["increment", "status", "strategy", "created", "version", "error"]
    rows = [
        [
            item["id"],
            item["status"],
            item["strategy"],
            item["created_at"][:19],
            item["version"] or MISSING,
            item["error"] or "",
        ]
        for item in items
    ]
    empty = f"No increments yet: accrete push {model} FOLDER"
    emit({"items": items} if as_json else None, table(headings, rows) if rows else empty)


def cancel(increment: IncrementId, url: Url = None, as_json: AsJson = False) -> None:
    """Stop an increment."""
    with service(url) as client:
        document = client.cancel(increment)
    emit(document if as_json else None, f"{document['status']}: accrete retry {increment} tries it again")


def retry(increment: IncrementId, url: Url = None, as_json: AsJson = False) -> None:
    """Try a failed or cancelled increment again."""
    with service(url) as client:
        document = client.retry(increment)
    warn(map(as_commands, document.get("notices", [])))
    emit(document if as_json else None, f"{document['status']}: accrete watch {increment}")


def watch(increment: IncrementId, url: Url = None, as_json: AsJson = False) -> None:
    """Follow an increment to its end."""
    with service(url) as client:
        follow(client, increment, as_json=as_json)


def follow(client: "Client", increment_id: str, *, as_json: bool) -> None:
    """Show an increment to its end; raises IncrementFailed unless it succeeded."""
    from api.client.client import succeeded
    from api.commands.progress import display, follow

    try:
        with display(as_json=as_json) as shown:
            increment = follow(client.events(increment_id), shown)
    except KeyboardInterrupt:
        typer.echo(f"The increment goes on without you: accrete watch {increment_id}", err=True)
        raise typer.Exit(130) from None
    succeeded(increment or client.increment(increment_id))
