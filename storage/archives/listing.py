"""Lists the files of an archive or a folder as a batch: classes, sides, rejects and ignored files.

Only names and sizes are read. `storage.archives.reading` gives the entries of an archive, `api.commands.sending` those
of a folder. So a client can report before an upload what the service will answer to it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from storage.archives import file_kinds, names
from storage.archives.layouts import EXPECTED, Layout
from storage.archives.members import Files, Members
from storage.archives.names import Entry, unsafe
from storage.archives.notices import Notices
from storage.domain import ClassCount, Ignored, Reject, Split
from storage.errors import ArchiveUnsafe, BatchInvalid
from storage.labels import label_fault

if TYPE_CHECKING:
    from storage.settings import Settings

NAME_BYTES = 64 << 20  # of all names of an archive together: 134 for each of half a million names


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The largest values that an archive may have."""

    members: int = 500_000  # entries, ignored ones and folders included
    unpacked_bytes: int = 32 << 30  # of all entries together
    image_bytes: int = 32 << 20  # of one image
    classes: int = 10_000

    @classmethod
    def of(cls, settings: "Settings") -> "ArchiveLimits":
        """The limits a service is set to."""
        return cls(
            members=settings.max_archive_members,
            unpacked_bytes=settings.max_unpacked_bytes,
            image_bytes=settings.max_image_bytes,
            classes=settings.max_classes,
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """What the files of a batch are by their names; no image has been decoded."""

    members: Members  # in the order they came
    classes: tuple[ClassCount, ...]  # by label; everything counts as train where there is no split
    rejects: tuple[Reject, ...]  # bad files: they count towards the share that a batch may have
    ignored: tuple[Ignored, ...]  # files that say by their names that they are no images
    notes: tuple[str, ...]  # how unusual names were interpreted
    is_stored: bool  # no image is compressed in the archive


def survey(entries: Iterable[Entry], *, limits: ArchiveLimits) -> Listing:
    """Decide what each file is.

    Raises `ArchiveUnsafe` for a member that could do harm and for a crossed limit. Raises `BatchInvalid` if there is
    nothing to learn from, if the layout has no classes or too many, or if train and test have different classes.
    """
    found = _Found(limits)
    for entry in entries:
        found.add(entry)
    _refuse_duplicate_names(found.images)
    return _placed(found, limits)


class _Found:
    """Sorts entries into images, rejects and ignored files, one entry at a time."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self.images, self.rejects, self.notices = Files(), list[Reject](), Notices()
        self.is_stored = True
        self._limits = limits
        self._count = self._unpacked = self._name_bytes = 0

    def add(self, entry: Entry) -> None:
        """Add an entry; of ignored files only the limits and the path's safety are checked."""
        raw = entry.name.encode()
        self._measure(entry, len(raw))
        parts = names.parts_of(entry.name)
        if reason := file_kinds.ignored_because(parts):
            if not entry.is_folder:
                self.notices.ignore(reason, entry.name)
            return
        if entry.fault is not None:
            raise entry.fault
        names.check(entry.name)
        name = "/".join(parts)
        if entry.is_guessed:
            self.notices.guess(name)
        if entry.is_folder:
            self.notices.folder(name)
            return
        if not parts:
            raise unsafe(entry.name, "has no name")
        self._file(entry, name, parts[-1])

    def _file(self, entry: Entry, name: str, filename: str) -> None:
        ending = file_kinds.extension(filename)
        if file_kinds.is_no_image_by_name(filename, ending):
            self.notices.ignore(file_kinds.NO_PICTURE, name)
        elif reason := file_kinds.unread_because(ending):
            self.rejects.append(Reject(name, reason))
        else:
            self.images.add(name.encode(), entry.size, entry.position)
            self.is_stored &= entry.is_stored
            return
        self.notices.folder(name.rpartition("/")[0])

    def _measure(self, entry: Entry, name_bytes: int) -> None:
        limits = self._limits
        self._count += 1
        self._unpacked += entry.size
        self._name_bytes += name_bytes
        if self._count > limits.members:
            raise ArchiveUnsafe(f"the archive is refused: more than {limits.members:,} members are not allowed")
        if self._unpacked > limits.unpacked_bytes:
            raise unsafe(entry.name, f"would bring the unpacked size over {limits.unpacked_bytes:,} bytes")
        if self._name_bytes > NAME_BYTES:
            raise unsafe(entry.name, f"would bring the length of all names over {NAME_BYTES:,} bytes")


def _placed(found: _Found, limits: ArchiveLimits) -> Listing:
    """Put each image into its class."""
    layout, notices, rejects = Layout(found.images.names), found.notices, found.rejects
    chosen, count = Files(), {split: Counter[str]() for split in (None, *Split)}
    for raw, size, position in found.images:
        name = raw.decode()
        place = layout.place(name)
        if place is None:
            if layout.is_unlabelled(name):
                notices.ignore("without a class: it lies directly in the folder of the evaluation side", name)
            else:
                rejects.append(Reject(name, f"not where an image is expected: {layout.pattern}"))
            continue
        if fault := label_fault(place.label):
            raise unsafe(name, fault)
        if size > limits.image_bytes:
            raise unsafe(name, f"is an image of {size:,} bytes, {limits.image_bytes:,} at most are allowed")
        chosen.add(raw, size, position)
        notices.place(place, name)
        count[place.split][place.label] += 1
        if len(count[place.split]) > limits.classes:
            raise BatchInvalid(f"the archive has more than {limits.classes:,} classes: send fewer at a time")
    if not chosen:
        _refuse_all(rejects, notices)
    train, test = count[None] + count[Split.TRAIN], count[Split.TEST]
    layout.refuse_generic(sorted(train.keys() | test.keys()))
    classes = _classes(train, test)
    notices.close(layout, classes)
    members = Members(chosen, layout, has_test=bool(test))
    return Listing(members, classes, tuple(rejects), notices.ignored, notices.notes, found.is_stored)


def _refuse_all(rejects: Sequence[Reject], notices: Notices) -> None:
    others = [reject.file for reject in rejects] + [name for group in notices.ignored for name in group.files]
    count = len(rejects) + sum(group.count for group in notices.ignored)
    raise BatchInvalid(
        f"the archive holds no image in a class folder: {EXPECTED}, with images as JPEG, PNG, WEBP, BMP or GIF; it has "
        f"{count:,} other files",
        examples=[names.shown(name) for name in others[:3]],
    )


def _refuse_duplicate_names(files: Files) -> None:
    """Raise `ArchiveUnsafe` if two files have the same name: programs differ in which of them they read.

    Sorting the names needs less memory than a set of them.
    """
    for name, following in pairwise(sorted(files.names)):
        if name == following:
            raise unsafe(name.decode(), "is there twice: each name may be used once")


def _classes(train: Counter[str], test: Counter[str]) -> tuple[ClassCount, ...]:
    """The classes, ordered by label; raises `BatchInvalid` if train and test have different classes."""
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
