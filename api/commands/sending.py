"""What `accrete push` reports of a folder or archive before it sends it, by the rules that the service applies."""

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from api.commands.console import emit, failure, warn
from api.commands.tables import labels, size, table

if TYPE_CHECKING:
    from api.client.packing import Archive, Folder
    from storage.archives.listing import Listing
    from storage.archives.reading import ArchiveIndex

_EXAMPLES = 3  # file names to print for each reason


def prepared(path: Path, *, as_json: bool, dry_run: bool) -> "Archive | Folder":
    """Return what to send, and print what it contains; fails if the service would refuse it because of its names."""
    from api.client.connection import ClientError
    from api.client.packing import Folder, source_of
    from storage.errors import AccreteError

    try:
        source = source_of(path)
        listing = _listing(source)
    except ClientError as error:
        raise failure(str(error)) from error
    except AccreteError as error:
        raise failure(f"{path}: {error.detail}") from error
    unusable = source.unusable if isinstance(source, Folder) else []
    report = _report(listing, unusable)
    if dry_run:
        emit(report if as_json else None, _text(report))
        return source
    typer.echo(_summary(report), err=True)
    warn(_remarks(report))
    return source.only(_wanted(listing, source)) if isinstance(source, Folder) else source


def tell_vanished(source: "Archive | Folder | None") -> None:
    """Warn of files that could not be read when their turn came."""
    from api.client.packing import Folder

    if isinstance(source, Folder):
        warn(f"{_several(group)} not sent: {group['reason']}" for group in _grouped(source.vanished))


def _listing(source: "Archive | Folder") -> "Listing | ArchiveIndex":
    from api.client.packing import Folder
    from storage.archives.listing import ArchiveLimits, survey
    from storage.archives.reading import scan

    # Only the service knows its limits.
    limits = ArchiveLimits(
        members=sys.maxsize, unpacked_bytes=sys.maxsize, image_bytes=sys.maxsize, classes=sys.maxsize
    )
    if not isinstance(source, Folder):
        return scan(source.path, limits=limits)
    return survey(source.entries(), limits=limits)


def _wanted(listing: "Listing | ArchiveIndex", source: "Folder") -> list[int]:
    """Positions of the files to send: images, and bad ones that were meant as images, since the service counts them."""
    rejected = {reject.file for reject in listing.rejects}
    images = {member.position for member in listing.members}
    return [position for position, (name, _) in enumerate(source.names) if position in images or name in rejected]


def _report(listing: "Listing | ArchiveIndex", unusable: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "images": len(listing.members),
        "bytes": sum(member.size for member in listing.members),
        "classes": [{"label": one.label, "train": one.train, "test": one.test} for one in listing.classes],
        "notes": list(listing.notes),
        "rejects": _grouped((one.file, one.reason) for one in listing.rejects),
        "ignored": [{"reason": one.reason, "count": one.count, "files": list(one.files)} for one in listing.ignored],
        "unusable": _grouped(unusable),
    }


def _grouped(found: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Group (file, reason) pairs by reason."""
    by_reason = sorted(found, key=lambda one: one[1])
    groups = [(reason, [name for name, _ in group]) for reason, group in groupby(by_reason, key=lambda one: one[1])]
    return [{"reason": reason, "count": len(names), "files": names[:_EXAMPLES]} for reason, names in groups]


def _summary(report: dict[str, Any]) -> str:
    counts = [
        f"{one['label']} {one['train']}" + (f" + {one['test']} to evaluate" if one["test"] else "")
        for one in report["classes"]
    ]
    return f"{report['images']:,} images of {len(counts)} classes, {size(report['bytes'])}: {labels(counts)}"


def _remarks(report: dict[str, Any]) -> list[str]:
    return [
        *report["notes"],
        *(f"{_several(group)} cannot be used: {group['reason']}" for group in report["rejects"]),
        *(f"{_several(group)} left out: {group['reason']}" for group in report["unusable"] + report["ignored"]),
    ]


def _several(group: dict[str, Any]) -> str:
    names = ", ".join(group["files"][:_EXAMPLES])
    return names if group["count"] <= len(group["files"][:_EXAMPLES]) else f"{group['count']:,} files, such as {names},"


def _text(report: dict[str, Any]) -> str:
    rows = [[one["label"], one["train"], one["test"]] for one in report["classes"]]
    total = f"{report['images']:,} images, {size(report['bytes'])}, nothing sent"
    return "\n\n".join([table(["class", "train", "test"], rows), *_remarks(report), total])
