"""Uploaded archives, read safely: zip and tar (plain, gzip, bzip2, xz) in ImageFolder layout.

`scan` looks at names and sizes only and decides whether the archive is fit; `read` yields the images. Nothing is
ever written under a name that an archive chose. Sizes an archive declares are limits, never promises.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, tee
from pathlib import Path
from typing import Literal

from storage import archive_names, tars, zips
from storage.archive_members import Content, Files, Member, Members
from storage.archive_names import Layout, unsafe
from storage.domain import ClassCount, Reject, Split
from storage.errors import ArchiveUnreadable, ArchiveUnsafe, BatchInvalid
from storage.settings import Settings

NAME_BYTES = 64 << 20  # of all names of an archive: 134 for each of half a million
NO_IMAGE = "no image by its extension: JPEG, PNG, WEBP, BMP and GIF are read"


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Where an archive stops being acceptable; all of them inclusive."""

    members: int = 500_000  # entries, ignored ones and folders included
    unpacked_bytes: int = 32 << 30  # of all entries together
    image_bytes: int = 32 << 20  # of one image
    classes: int = 10_000

    @classmethod
    def of(cls, settings: Settings) -> "ArchiveLimits":
        """The limits a service is set to."""
        return cls(
            members=settings.max_archive_members,
            unpacked_bytes=settings.max_unpacked_bytes,
            image_bytes=settings.max_image_bytes,
            classes=settings.max_classes,
        )


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """What an archive holds, by its directory; no image has been decoded."""

    kind: Literal["zip", "tar"]
    members: Sequence[Member]  # in the order of the archive
    rejects: tuple[Reject, ...]
    classes: tuple[ClassCount, ...]  # by label; everything counts as train where there is no split
    is_stored: bool  # every image lies in the file as it is, none compressed


def scan(path: Path, *, limits: ArchiveLimits) -> ArchiveIndex:
    """Names, sizes and classes of an archive, in memory bounded by the limits.

    ArchiveUnreadable: no zip or tar, empty, truncated or damaged. ArchiveUnsafe: a member that could do harm, or a
    limit crossed. BatchInvalid: nothing to learn from in it, or train and test do not fit together.
    """
    kind = _kind(path)
    images, rejects, is_stored = _files(path, kind, limits)
    layout = Layout(images.names)
    chosen, count = Files(), {split: Counter[str]() for split in (None, *Split)}
    for raw, size, position in images:
        name = raw.decode()
        place = layout.place(name)
        if place is None:
            rejects.append(Reject(name, f"not where an image is expected: {layout.pattern}"))
            continue
        label, split = place
        if fault := archive_names.label_fault(label):
            raise unsafe(name, fault)
        if size > limits.image_bytes:
            raise unsafe(name, f"is an image of {size:,} bytes, {limits.image_bytes:,} at most are allowed")
        chosen.add(raw, size, position)
        count[split][label] += 1
        if len(count[split]) > limits.classes:
            raise BatchInvalid(f"the archive has more than {limits.classes:,} classes: send fewer at a time")
    if not chosen:
        raise BatchInvalid(
            "the archive holds no image in a class folder: expected class/image, or train/class/image and "
            f"test/class/image, with images as JPEG, PNG, WEBP, BMP or GIF; it has {len(rejects):,} other files",
            examples=[archive_names.shown(reject.file) for reject in rejects[:3]],
        )
    train, test = count[None] + count[Split.TRAIN], count[Split.TEST]
    members = Members(chosen, layout, has_test=bool(test))
    return ArchiveIndex(kind, members, tuple(rejects), _classes(train, test), is_stored)


def read(path: Path, index: ArchiveIndex) -> Iterator[tuple[Member, Content]]:
    """Every image with its bytes, one at a time, in the order of the index.

    Stops at the bytes that really come out: ArchiveUnsafe where more do than the directory declared,
    ArchiveUnreadable where fewer do or the checksum is wrong.
    """
    reader = zips.contents if index.kind == "zip" else tars.contents
    members, again = tee(index.members)
    yield from zip(members, reader(path, ((one.name, one.position, one.size) for one in again)), strict=True)


def _kind(path: Path) -> Literal["zip", "tar"]:
    if path.stat().st_size == 0:
        raise ArchiveUnreadable("the upload is empty: send a zip or tar archive of images in class folders")
    return "zip" if zips.is_zip(path) else "tar"


def _files(path: Path, kind: str, limits: ArchiveLimits) -> tuple[Files, list[Reject], bool]:
    """Images and other files by their names, without those to ignore, and whether all images are stored as they are.

    ArchiveUnsafe where a limit is crossed.
    """
    images, rejects = Files(), list[Reject]()
    unpacked, name_bytes, is_stored = 0, 0, True
    entries = zips.entries(path, limits.members) if kind == "zip" else tars.entries(path)
    for count, entry in enumerate(entries, start=1):
        if count > limits.members:
            raise ArchiveUnsafe(f"the archive is refused: more than {limits.members:,} members are not allowed")
        name = archive_names.safe_name(entry.name)
        unpacked += entry.size
        name_bytes += len(entry.name)
        if unpacked > limits.unpacked_bytes:
            raise unsafe(name, f"would bring the unpacked size over {limits.unpacked_bytes:,} bytes")
        if name_bytes > NAME_BYTES:
            raise unsafe(name, f"would bring the length of all names over {NAME_BYTES:,} bytes")
        if entry.is_folder or archive_names.is_ignored(name):
            continue
        if not name:
            raise unsafe(entry.name, "has no name")
        if archive_names.is_image(name):
            images.add(name.encode(), entry.size, entry.position)
            is_stored &= entry.is_stored
        else:
            rejects.append(Reject(name, NO_IMAGE))
    _refuse_twins(images)
    return images, rejects, is_stored


def _refuse_twins(files: Files) -> None:
    """Two files of one name: which of them is meant depends on who reads. Sorting needs less memory than a set."""
    for name, following in pairwise(sorted(files.names)):
        if name == following:
            raise unsafe(name.decode(), "is there twice: each name may be used once")


def _classes(train: Counter[str], test: Counter[str]) -> tuple[ClassCount, ...]:
    """The classes by label; both sides have to have the same ones, if there are two."""
    if only_test := sorted(test.keys() - train.keys()):
        detail = f"no images under train/ for classes that test/ has: {_listed(only_test)}"
        raise BatchInvalid(detail, classes=only_test)
    if test and (only_train := sorted(train.keys() - test.keys())):
        detail = (
            f"no images under test/ for classes that train/ has: {_listed(only_train)}: add some, or leave out test/"
        )
        raise BatchInvalid(detail, classes=only_train)
    return tuple(ClassCount(label, train[label], test[label]) for label in sorted(train))


def _listed(labels: list[str]) -> str:
    """A few class names for a message."""
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10:,} more" if len(labels) > 10 else "")
