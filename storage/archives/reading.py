"""Reads uploaded archives safely: zip and tar (plain, gzip, bzip2, xz), with an image's class in its path.

`scan` reads names and sizes only, and decides whether the archive is acceptable. `read` yields the images. No file is
ever written under a name from an archive. A size that an archive declares is a limit for the bytes that are unpacked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Literal

from storage.archives import listing, tars, zips
from storage.archives.listing import ArchiveLimits
from storage.archives.members import Content, Member
from storage.domain import ClassCount, Ignored, Reject
from storage.errors import ArchiveUnreadable

__all__ = ["ArchiveIndex", "ArchiveLimits", "read", "scan"]


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """What an archive holds, by its directory; no image has been decoded."""

    kind: Literal["zip", "tar"]
    members: Sequence[Member]  # in the order of the archive
    rejects: tuple[Reject, ...]
    ignored: tuple[Ignored, ...]
    notes: tuple[str, ...]
    classes: tuple[ClassCount, ...]  # by label; everything counts as train where there is no split
    is_stored: bool  # no image is compressed in the archive


def scan(path: Path, *, limits: ArchiveLimits) -> ArchiveIndex:
    """Names, sizes and classes of an archive, in memory bounded by the limits.

    Raises `ArchiveUnreadable` for a file that is not a zip or tar archive, or is empty, truncated or damaged. Raises
    the errors of `listing.survey`, too.
    """
    kind = _kind(path)
    entries = zips.entries(path, limits.members) if kind == "zip" else tars.entries(path)
    found = listing.survey(entries, limits=limits)
    return ArchiveIndex(kind, found.members, found.rejects, found.ignored, found.notes, found.classes, found.is_stored)


def read(path: Path, index: ArchiveIndex) -> Iterator[tuple[Member, Content]]:
    """Every image with its bytes, one at a time, in the order of the index.

    Raises `ArchiveUnsafe` if an image unpacks to more bytes than declared. Raises `ArchiveUnreadable` if it has fewer
    bytes or a wrong checksum.
    """
    reader = zips.contents if index.kind == "zip" else tars.contents
    members, again = tee(index.members)
    yield from zip(members, reader(path, ((one.name, one.position, one.size) for one in again)), strict=True)


def _kind(path: Path) -> Literal["zip", "tar"]:
    if path.stat().st_size == 0:
        raise ArchiveUnreadable("the upload is empty: send a zip or tar archive of images in class folders")
    return "zip" if zips.is_zip(path) else "tar"
