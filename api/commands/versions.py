"""`accrete versions`, `promote`, `rollback`, `download`, `card` and `export`: versions, in service and out of it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, Model, Url, Version
from api.commands.tables import labels, seconds, share, table

if TYPE_CHECKING:
    from api.client import documents


Reason = Annotated[str | None, typer.Option(help="Why, for the record of promotions.")]


def versions(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """List a model's versions: what each learned, how well, and what it forgot."""
    with service(url) as client:
        items = list(client.versions(model))
    empty = f"No versions yet: accrete push {model} FOLDER"
    emit({"items": items} if as_json else None, versions_table(items) if items else empty)


def promote(
    model: Model,
    version: Version,
    reason: Reason = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Put a version into service."""
    with service(url) as client:
        current = client.promote(model, version, reason=reason)
    emit(current if as_json else None, f"version {current['version']} of {model} is in service")


def rollback(model: Model, reason: Reason = None, url: Url = None, as_json: AsJson = False) -> None:
    """Put the previous version back into service."""
    with service(url) as client:
        current = client.rollback(model, reason=reason)
    emit(current if as_json else None, f"version {current['version']} of {model} is in service again")


def promotions(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """List which version was put into service when, by whom and why, latest first."""
    with service(url) as client:
        items = list(client.promotions(model))
    rows = [
        [
            (item["created_at"] or "earlier")[:19],
            item["version"],
            item["previous"] or "",
            item["key"] or (f"increment {item['increment_id']}" if item["increment_id"] else "not on record"),
            item["reason"] or "",
        ]
        for item in items
    ]
    emit({"items": items} if as_json else None, table(["when", "version", "before", "by", "reason"], rows))


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


def card(
    model: Model,
    version: Version,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print a version's model card: Markdown, with "not stated" where only a person knows."""
    with service(url) as client:
        text = client.card(model, version)
    emit({"model": model, "version": version, "card": text} if as_json else None, text.rstrip("\n"))


class ExportFormat(StrEnum):
    """How a version is exported."""

    ONNX = "onnx"
    PT2 = "pt2"


def export(
    model: Model,
    version: Version,
    file: Annotated[
        Path | None, typer.Argument(help="Where to write it; default: MODEL-VERSION.FORMAT in the working directory.")
    ] = None,
    *,
    format: Annotated[  # noqa: A002 - the option's name
        ExportFormat, typer.Option(help="onnx, for any ONNX runtime; pt2, for torch.export, which a worker makes.")
    ] = ExportFormat.ONNX,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write a version into one file that can be computed without Accrete, with labels and transform inside."""
    target = file or Path(f"{model}-{version}.{format}")
    with service(url) as client:
        client.export(model, version, target, kind=format)
    size = target.stat().st_size
    emit({"file": str(target), "bytes": size} if as_json else None, f"wrote {target}, {size:,} bytes")


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
