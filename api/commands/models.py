"""`accrete models`: list, create, change and delete them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.console import emit, failure, service, warn
from api.commands.options import (
    AsJson,
    KeepPredictions,
    Model,
    Network,
    Recipe,
    Retention,
    Strategy,
    Url,
    parsed_recipe,
)
from api.commands.tables import MISSING, table
from api.commands.wording import as_commands

if TYPE_CHECKING:
    from api.client.documents import Memory

MemoryPerClass = Annotated[int | None, typer.Option(help="Exemplars to keep of each class.")]
MemoryTotal = Annotated[int | None, typer.Option(help="Exemplars to keep in all.")]
NoMemory = Annotated[bool, typer.Option("--no-memory", help="Keep none: no rehearsal.")]
app = typer.Typer(help="List the models; create, change and delete them.", invoke_without_command=True)


@app.callback()
def list_models(context: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """List the models; create, change and delete them."""
    if context.invoked_subcommand is not None:
        return
    with service(url) as client:
        items = list(client.models())
    headings = ["model", "network", "pixels", "strategy", "classes", "current", "head"]
    rows = [
        [
            model["name"],
            model["network"],
            f"{model['channels']}×{model['image_size']}×{model['image_size']}",
            model["strategy"],
            len(model["classes"]),
            model["current"] or MISSING,
            model["head"] or MISSING,
        ]
        for model in items
    ]
    empty = "No models yet: accrete models create NAME"
    emit({"items": items} if as_json else None, table(headings, rows) if rows else empty)


@app.command("create")
def create_model(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    *,
    network: Network = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width in pixels.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (colour).")] = None,
    strategy: Strategy = None,
    recipe: Recipe = None,
    memory_per_class: MemoryPerClass = None,
    memory_total: MemoryTotal = None,
    no_memory: NoMemory = False,
    retention: Retention = None,
    keep_predictions: KeepPredictions = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Create a model; what is left out is the service's default."""
    settings: dict[str, Any] = {
        "network": network,
        "image_size": image_size,
        "channels": channels,
        "strategy": strategy,
        "recipe": parsed_recipe(recipe),
        "retention": retention,
        "keep_predictions": keep_predictions,
    }
    if no_memory or memory_per_class is not None or memory_total is not None:
        settings["memory"] = _memory(memory_per_class, memory_total, none=no_memory)
    with service(url) as client:
        model = client.create_model(name, **settings)
    warn(map(as_commands, model.get("notices", [])))
    emit(model if as_json else None, f"created {model['name']}: accrete push {model['name']} FOLDER")


@app.command("change")
def change_model(
    name: Model,
    *,
    strategy: Strategy = None,
    recipe: Recipe = None,
    memory_per_class: MemoryPerClass = None,
    memory_total: MemoryTotal = None,
    no_memory: NoMemory = False,
    retention: Retention = None,
    keep_predictions: KeepPredictions = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Change what a model does from now on; what is left out stays as it is."""
    chosen = {
        "strategy": strategy,
        "recipe": parsed_recipe(recipe),
        "retention": retention,
        "keep_predictions": keep_predictions,
    }
    changes: dict[str, Any] = {option: value for option, value in chosen.items() if value is not None}
    if no_memory or memory_per_class is not None or memory_total is not None:
        changes["memory"] = _memory(memory_per_class, memory_total, none=no_memory)
    if not changes:
        raise failure("name what to change, such as --strategy or --retention")
    with service(url) as client:
        model = client.change_model(name, **changes)
    warn(map(as_commands, model.get("notices", [])))
    emit(model if as_json else None, f"changed {', '.join(changes)} of {name}; it holds from now on")


@app.command("delete")
def delete_model(
    name: Model,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Delete a model with all its versions."""
    if not yes:
        typer.confirm(f"Delete {name} with all its versions?", abort=True, err=True)
    with service(url) as client:
        client.delete_model(name)
    emit({"deleted": name} if as_json else None, f"deleted {name}")


def _memory(per_class: int | None, total: int | None, *, none: bool) -> "Memory | None":
    """The memory that the options choose, of which at most one may be given."""
    if [per_class is not None, total is not None, none].count(True) > 1:
        raise failure("give only one of --memory-per-class, --memory-total and --no-memory")
    if none:
        return None
    return {"per_class": per_class} if per_class is not None else {"total": total or 0}
