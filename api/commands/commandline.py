"""`accrete`: runs the service and uses it, from the command line.

Modules that take long to import are imported inside the commands that need them, so that `accrete --help` is fast.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from api.commands import batches, classes, erasure, keys, models
from api.commands.console import emit, failure, warn
from api.commands.group import Commands
from api.commands.increments import cancel, increments, push, retry, watch
from api.commands.metrics import compare, metrics
from api.commands.options import AsJson
from api.commands.overviews import audit, strategies
from api.commands.predictions import predict, predictions
from api.commands.versions import card, download, export, promote, promotions, rollback, versions, versions_table

__all__ = ["app", "versions_table"]

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _tell_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"accrete {version('accrete')}")
        raise typer.Exit


@app.callback(epilog="Exit status: 0 done, 1 failed or refused, 2 not understood, 130 interrupted.")
def accrete(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A classifier that keeps learning new classes, and says what each update did to the old ones."""


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
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from api.process.embedded import serve
    from api.process.homelock import HomeInUse
    from api.process.privateredis import RedisMissing
    from api.process.supervisor import StartFailed
    from storage.environment import environment_warnings
    from storage.settings import SettingsInvalid, read_settings

    def announce(url: str) -> None:
        document = {"event": "ready", "url": url}
        emit(document if as_json else None, f"Accrete is ready at {url} (Ctrl-C stops it)")

    chosen = {name: value for name, value in {"host": host, "port": port, "home": home}.items() if value is not None}
    try:
        settings = read_settings(**chosen)
        warn(environment_warnings(settings))
        serve(settings, verbose=verbose, on_ready=announce)
    except (HomeInUse, RedisMissing, StartFailed, SettingsInvalid, OSError) as error:
        raise failure(str(error)) from error
    except (SQLAlchemyError, CommandError) as error:
        raise failure(f"the database: {str(error).splitlines()[0]}") from error


@app.command()
def dashboard(
    api: Annotated[str, typer.Option(help="Address of the API.", envvar="ACCRETE_URL")] = "http://127.0.0.1:8000",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8001,
    home: Annotated[Path, typer.Option(help="Folder for what it writes.", envvar="ACCRETE_HOME")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Serve the pages for people, apart from the service, until Ctrl-C; `accrete up` serves them too."""
    import os
    import sys

    url = f"http://{host}:{port}"
    emit(
        {"event": "starting", "url": url} if as_json else None, f"The dashboard of {api} is at {url} (Ctrl-C stops it)"
    )
    sys.stdout.flush()  # the program takes the place of this one
    program = [sys.executable, "-m", "api.dashboard"]
    os.execv(sys.executable, [*program, "--api", api, "--host", host, "--port", str(port), "--home", str(home)])


@app.command()
def gc(
    least_age: Annotated[
        float,
        typer.Option("--least-age", min=0, help="Seconds since a blob was stored: younger ones may be in use."),
    ] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Delete blobs that nothing refers to, left by processes that were killed before they committed."""
    from api.commands.storage import opened
    from storage.maintenance.disposal import collect

    with opened() as (settings, database, blobs):
        looked_at, deleted = collect(database=database, blobs=blobs, scratch=settings.scratch, least_age=least_age)
    emit({"blobs": looked_at, "deleted": deleted} if as_json else None, f"deleted {deleted} of {looked_at} blobs")


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Add network.onnx to the versions of earlier releases, as the worker does when it starts; the service may run."""
    import subprocess
    import sys

    from api.commands.storage import opened
    from storage.environment import training_lacks

    if (lack := training_lacks()) is not None:
        raise failure(lack)
    with opened():  # there is a service, and its database has the present tables
        pass
    # A process of its own: it needs torch, and computes at the lowest priority.
    command = [sys.executable, "-m", "trainer.process.upgrade", *(["--json"] if as_json else [])]
    if (status := subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode) != 0:
        raise typer.Exit(1 if status > 0 else 128 - status)


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="The tar file to write.")], as_json: AsJson = False) -> None:
    """Write the database and its blobs to a file; the service may run. The file holds all images; keys as digests."""
    from api.commands.storage import opened
    from storage.maintenance import backup as backups

    if file.exists():
        raise failure(f"{file} exists already")
    with opened() as (settings, database, blobs):
        contents = backups.write(file, database=database, blobs=blobs)
        if not contents.rows["models"]:
            warn([f"the service of {settings.home.resolve()} has no models: is it the service you mean?"])
    document = {"file": str(file), "blobs": contents.blobs, "rows": dict(contents.rows)}
    emit(document if as_json else None, f"wrote {file}: {contents.rows['models']} models, {contents.blobs} blobs")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A tar file that `accrete backup` wrote.", exists=True, dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty database and blob store: those of a new ACCRETE_HOME, or of the settings.

    Keys that were created there before stay valid, in addition to those of the backup.
    """
    from api.commands.storage import opened
    from storage.maintenance import restoration

    with opened(existing=False) as (settings, _, blobs):
        contents = restoration.restore(file, database_url=settings.database, blobs=blobs)
    document = {"blobs": contents.blobs, "rows": dict(contents.rows)}
    told = f"restored {contents.rows['models']} models, {contents.blobs} blobs into {settings.home.resolve()}"
    emit(document if as_json else None, told)


# In the order of `accrete --help`.
COMMANDS: tuple[Callable[..., None], ...] = (
    *(push, watch, increments, cancel, retry),
    *(versions, metrics, compare, predict, predictions, promote, rollback, promotions),
    *(download, export, card, strategies, audit),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(models.app, name="models")
app.add_typer(classes.app, name="classes")
app.add_typer(batches.batches, name="batches")
app.add_typer(batches.images, name="images")
app.add_typer(erasure.app, name="erase")
app.add_typer(keys.app, name="keys")


if __name__ == "__main__":
    app()
