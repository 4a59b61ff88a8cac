"""`accrete`: the service and everything one does with it, from the command line.

Whatever takes long to import is imported by the command that needs it, so that `accrete --help` answers at once.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.tables import MISSING, labels, seconds, share, table

if TYPE_CHECKING:
    from api.client import Client
    from api.documents import Curves, Memory, ModelMetrics, Version

_FILES_PER_REQUEST = 16  # well below what a request may hold, in images and in bytes

app = typer.Typer(
    help="A classifier that keeps learning new classes, and says what each update did to the old ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="List the models; create and delete them.", invoke_without_command=True)
app.add_typer(models, name="models")

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="ACCRETE_URL", help="Address of the service; default: this machine, port 8000."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Recipe = Annotated[str | None, typer.Option(help="Hyper-parameters as JSON, such as '{\"epochs\": 10}'.")]
Strategy = Annotated[str | None, typer.Option(help="What to optimise; GET /v1/strategies explains each.")]


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on (ACCRETE_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one (ACCRETE_PORT).")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for everything it writes (ACCRETE_HOME).")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show all output of all processes, not only warnings.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole service until Ctrl-C: Redis, one worker, the API (settings: ACCRETE_*)."""
    from pydantic import ValidationError

    from api.embedded import serve
    from api.homelock import HomeInUse
    from api.privateredis import RedisMissing
    from api.supervisor import StartFailed
    from storage.settings import Settings

    def announce(url: str) -> None:
        document = {"event": "ready", "url": url}
        _emit(document if as_json else None, f"Accrete is ready at {url} (Ctrl-C stops it)")

    chosen = {name: value for name, value in {"host": host, "port": port, "home": home}.items() if value is not None}
    try:
        serve(Settings(**chosen), verbose=verbose, on_ready=announce)  # type: ignore[arg-type]
    except (HomeInUse, RedisMissing, StartFailed, OSError) as error:
        raise _failure(str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise _failure(f"ACCRETE_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}") from error


@models.callback()
def list_models(context: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """List the models; create and delete them."""
    if context.invoked_subcommand is not None:
        return
    with _service(url) as client:
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
    _emit({"items": items} if as_json else None, table(headings, rows) if rows else empty)


@models.command("create")
def create_model(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    *,
    network: Annotated[str | None, typer.Option(help="resnet32, or a classifier of torchvision by its name.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width in pixels.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (colour).")] = None,
    strategy: Strategy = None,
    recipe: Recipe = None,
    memory_per_class: Annotated[int | None, typer.Option(help="Exemplars to keep of each class.")] = None,
    memory_total: Annotated[int | None, typer.Option(help="Exemplars to keep in all.")] = None,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Keep none: no rehearsal.")] = False,
    retention: Annotated[str | None, typer.Option(help="Images to keep: all, exemplars or none.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Create a model; what is left out is the service's default."""
    settings: dict[str, Any] = {
        "network": network,
        "image_size": image_size,
        "channels": channels,
        "strategy": strategy,
        "recipe": _recipe(recipe),
        "retention": retention,
    }
    if no_memory or memory_per_class is not None or memory_total is not None:
        settings["memory"] = _memory(memory_per_class, memory_total, none=no_memory)
    with _service(url) as client:
        model = client.create_model(name, **settings)
    _emit(model if as_json else None, f"created {model['name']}: accrete push {model['name']} FOLDER")


@models.command("delete")
def delete_model(
    name: Model,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Delete a model with all its versions."""
    if not yes:
        typer.confirm(f"Delete {name} with all its versions?", abort=True, err=True)
    with _service(url) as client:
        client.delete_model(name)
    _emit({"deleted": name} if as_json else None, f"deleted {name}")


@app.command()
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

    chosen = _recipe(recipe)
    with _service(url) as client:
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
            _emit(increment if as_json else None, f"queued: accrete watch {increment['id']}")


@app.command()
def watch(
    increment: Annotated[str, typer.Argument(help="Id of the increment.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Follow an increment to its end."""
    with _service(url) as client:
        _follow(client, increment, as_json=as_json)


@app.command()
def versions(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """List a model's versions: what each learned, how well, and what it forgot."""
    with _service(url) as client:
        items = list(client.versions(model))
    empty = f"No versions yet: accrete push {model} FOLDER"
    _emit({"items": items} if as_json else None, versions_table(items) if items else empty)


@app.command()
def metrics(
    model: Model,
    version: Annotated[
        int | None, typer.Option(help="The version whose ancestors to follow (default: the head).")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the accuracy matrix and the curves, task-agnostic (TAg) and task-aware (TAw)."""
    with _service(url) as client:
        document = client.metrics(model, version=version)
    _emit(document if as_json else None, metrics_text(document))


@app.command()
def predict(
    model: Model,
    files: Annotated[list[Path], typer.Argument(help="Images.", exists=True, dir_okay=False)],
    *,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 3,
    version: Annotated[int | None, typer.Option(help="Another version than the current one.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Classify images."""
    items: list[dict[str, Any]] = []
    with _service(url) as client:
        for start in range(0, len(files), _FILES_PER_REQUEST):
            some = files[start : start + _FILES_PER_REQUEST]
            answer = client.predict(model, some, top_k=top_k, version=version)
            for file, ranked in zip(some, answer["predictions"], strict=True):
                item = {"file": str(file), "version": answer["version"], "id": answer["id"], "predictions": ranked}
                items.append(item)
    rows = [
        [item["file"], *(f"{found['label']} {share(found['probability'])}" for found in item["predictions"])]
        for item in items
    ]
    text = "\n".join("  ".join(row) for row in rows)
    _emit({"model": model, "items": items} if as_json else None, text)


@app.command()
def promote(
    model: Model,
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Put a version into service."""
    with _service(url) as client:
        current = client.promote(model, version)
    _emit(current if as_json else None, f"version {current['version']} of {model} is in service")


@app.command()
def rollback(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """Put the previous version back into service."""
    with _service(url) as client:
        current = client.rollback(model)
    _emit(current if as_json else None, f"version {current['version']} of {model} is in service again")


def versions_table(items: "list[Version]") -> str:
    """A line per version."""
    headings = ["version", "classes", "new", "TAg", "TAw", "forgetting", "seconds", ""]
    rows = [
        [
            version["version"],
            len(version["classes"]),
            labels(version["tasks"][-1]),
            share(version["summary"]["tag"]["average_accuracy"]),
            share(version["summary"]["taw"]["average_accuracy"]),
            share(version["summary"]["tag"]["forgetting"]),
            seconds(sum(version["seconds"].values())),
            " ".join(word for word in ("current", "head") if version[word]),
        ]
        for version in items
    ]
    return table(headings, rows)


def metrics_text(document: "ModelMetrics") -> str:
    """Both accuracy matrices with their curves; a row per version, a column per task."""
    parts = []
    for title, curves in (("Task-agnostic (TAg)", document["tag"]), ("Task-aware (TAw)", document["taw"])):
        tasks = [f"task {number}" for number in range(1, len(document["tasks"]) + 1)]
        headings = ["version", *tasks, "average", "forgetting", "backward transfer"]
        rows = [
            [number, *_matrix_row(curves, row, len(tasks)), *(share(curve[row]) for curve in _curves(curves))]
            for row, number in enumerate(document["versions"])
        ]
        parts.append(f"{title}\n{table(headings, rows)}")
    tasks = [f"task {number}: {labels(names)}" for number, names in enumerate(document["tasks"], start=1)]
    return "\n\n".join([*parts, "\n".join(tasks)])


def _matrix_row(curves: "Curves", row: int, width: int) -> list[str]:
    cells = [share(value) for value in curves["matrix"][row]]
    return cells + [""] * (width - len(cells))


def _curves(curves: "Curves") -> "list[list[float | None]]":
    return [curves["average_accuracy"], curves["forgetting"], curves["backward_transfer"]]


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


@contextmanager
def _service(url: str | None) -> "Iterator[Client]":
    """A client whose errors become one line and exit code 1."""
    from api.client import Client
    from api.connection import DEFAULT_URL, ClientError

    try:
        with Client(url or DEFAULT_URL) as client:
            yield client
    except ClientError as error:
        raise _failure(str(error)) from error


def _failure(message: str) -> typer.Exit:
    """Say what went wrong; the exception to raise."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(1)


def _emit(document: object | None, text: str) -> None:
    """Print the JSON document if there is one, else the text."""
    typer.echo(text if document is None else json.dumps(document, ensure_ascii=False))


def _recipe(text: str | None) -> dict[str, Any] | None:
    """The recipe of the option."""
    if text is None:
        return None
    try:
        recipe = json.loads(text)
    except json.JSONDecodeError as error:
        raise _failure(f"--recipe is no JSON ({error}); expected something like '{{\"epochs\": 10}}'") from error
    if not isinstance(recipe, dict):
        raise _failure(f"--recipe must be a JSON object such as '{{\"epochs\": 10}}', got {text}")
    return recipe


def _memory(per_class: int | None, total: int | None, *, none: bool) -> "Memory | None":
    """The memory of the options, of which at most one may be given."""
    if [per_class is not None, total is not None, none].count(True) > 1:
        raise _failure("give only one of --memory-per-class, --memory-total and --no-memory")
    if none:
        return None
    return {"per_class": per_class} if per_class is not None else {"total": total or 0}


if __name__ == "__main__":
    app()
