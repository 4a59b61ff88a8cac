"""Notices about a batch: which files were ignored, and how their names were interpreted."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from storage.archives.layouts import Layout, Place
from storage.archives.names import printable
from storage.domain import ClassCount, Ignored
from storage.labels import label_fault

EXAMPLES = 5  # names given with each kind of notice
_MOST = 10_000  # folders that are remembered


class Notices:
    """Collects notices while the names are read: counts all cases, and keeps a few examples of each kind."""

    def __init__(self) -> None:
        """Begin empty."""
        self._ignored: dict[str, tuple[list[str], int]] = {}
        self._folders = set[str]()
        self._spellings: defaultdict[str, set[str]] = defaultdict(set)
        self._guessed = self._nested = ("", 0)
        self._validation = False
        self.notes: tuple[str, ...] = ()

    def ignore(self, reason: str, name: str) -> None:
        """Count a file that is ignored; it is not a reject."""
        names, count = self._ignored.setdefault(reason, ([], 0))
        if count < EXAMPLES:
            names.append(printable(name))
        self._ignored[reason] = (names, count + 1)

    def guess(self, name: str) -> None:
        """Count a name whose encoding had to be guessed."""
        self._guessed = (self._guessed[0] or name, self._guessed[1] + 1)

    def folder(self, name: str) -> None:
        """Remember a folder, which may have no images."""
        if len(self._folders) < _MOST:
            self._folders.add(name)

    def place(self, place: Place, name: str) -> None:
        """Note how the class of an image was found."""
        if place.is_nested:
            self._nested = (self._nested[0] or name, self._nested[1] + 1)
        self._validation |= place.is_validation
        if len(spellings := self._spellings[place.label]) < EXAMPLES:
            spellings.add(place.folder)

    @property
    def ignored(self) -> tuple[Ignored, ...]:
        """The ignored files, grouped by reason."""
        return tuple(Ignored(reason, count, tuple(names)) for reason, (names, count) in self._ignored.items())

    def close(self, layout: Layout, classes: Sequence[ClassCount]) -> None:
        """Make the notes, after the last file."""
        labels = {count.label for count in classes}
        for label in sorted(self._empty(layout) - labels):
            self.ignore("a class folder without images", f"{label}/")
        self.notes = tuple(self._told(layout, labels))

    def _empty(self, layout: Layout) -> set[str]:
        places = (layout.place(f"{folder}/") for folder in self._folders)
        return {place.label for place in places if place and label_fault(place.label) is None}

    def _told(self, layout: Layout, labels: set[str]) -> list[str]:
        notes = []
        if around := "/".join((*layout.wrapper, *layout.inner)):
            notes.append(f"The folders around the classes, {around}/, were left out of account.")
        if self._validation:
            notes.append("Validation images count as evaluation images, as test images do: none is trained on.")
        if self._nested[1]:
            notes.append(
                f"{self._nested[1]:,} images in folders within a class folder are images of that class, such as "
                f"{self._nested[0]}."
            )
        if self._guessed[1]:
            notes.append(
                f"{self._guessed[1]:,} names are in no stated encoding and were read as the old code page of such "
                f"archives, such as {self._guessed[0]}: write them as UTF-8 if that is wrong."
            )
        notes.extend(self._merged())
        notes.extend(_case_variants(labels))
        return notes

    def _merged(self) -> list[str]:
        odd = [
            (label, sorted(found))
            for label, found in self._spellings.items()
            if len(found) > 1 or any(len(folder) > len(unicodedata.normalize("NFD", label)) for folder in found)
        ]
        return [
            f"{' and '.join(map(repr, found))} are read as class {label!r}: blanks at the ends and the Unicode form of "
            "accents do not count."
            for label, found in sorted(odd)[:EXAMPLES]
        ]


def _case_variants(labels: set[str]) -> list[str]:
    """A note on classes that differ by case alone, which may be a mistake."""
    by_fold = defaultdict(list)
    for label in sorted(labels):
        by_fold[label.casefold()].append(label)
    alike = [" and ".join(map(repr, found[:3])) for found in by_fold.values() if len(found) > 1]
    return [f"Classes differ by case alone: {', '.join(alike[:EXAMPLES])}."] if alike else []
