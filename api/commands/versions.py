"""`accrete versions`, `promote`, `rollback` and `download`: list versions, put one into service, and download one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, Model, Url, Version
from api.commands.tables import labels, seconds, share, table

if TYPE_CHECKING:
    from api.client import documents


def versions(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """List a model's versions: what each learned, how well, and what it forgot."""
    with service(url) as client:
        items = list(client.versions(model))
    empty = f"No versions yet: accrete push {model} FOLDER"
    emit({"items": items} if as_json else None, versions_table(items) if items else empty)


def promote(
    model: Model,
    version: Version,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Put a version into service."""
    with service(url) as client:
        current = client.promote(model, version)
    emit(current if as_json else None, f"version {current['version']} of {model} is in service")


def rollback(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """Put the previous version back into service."""
    with service(url) as client:
        current = client.rollback(model)
    emit(current if as_json else None, f"version {current['version']} of {model} is in service again")


def download(
    model: Model,
    version: Version,
    folder: Annotated[
        Path | None, typer.Argument(help="Where its files go; default: MODEL-VERSION in the working directory.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Download the files of a version: all that `accrete.load_version` needs to predict."""
    target = folder or Path(f"{model}-{version}")
    with service(url) as client:
        files = sorted(client.version(model, version)["files"])
        client.download(model, version, target)
    emit({"folder": str(target), "files": files} if as_json else None, f"wrote {', '.join(files)} to {target}")


def versions_table(items: "list[documents.Version]") -> str:
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
