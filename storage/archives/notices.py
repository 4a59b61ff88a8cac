"""What is said about a batch beside its classes: which files were left out, and how their names were understood."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from storage.archives.layouts import Layout, Place
from storage.archives.names import printable
from storage.domain import ClassCount, Ignored
from storage.labels import label_fault

EXAMPLES = 5  # names that are told of each kind
_MOST = 10_000  # folders that are kept in mind


class Notices:
    """Gathered while the names are read; a few examples of each kind are kept, and all are counted."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ignored: dict[str, tuple[list[str], int]] = {}
        self._folders = set[str]()
        self._spellings: defaultdict[str, set[str]] = defaultdict(set)
        self._guessed = self._nested = ("", 0)
        self._validation = False
        self.notes: tuple[str, ...] = ()

    def ignore(self, reason: str, name: str) -> None:
        """A file is left out, and no bad one."""
        names, count = self._ignored.setdefault(reason, ([], 0))
        if count < EXAMPLES:
            names.append(printable(name))
        self._ignored[reason] = (names, count + 1)

    def guess(self, name: str) -> None:
        """A name was in no encoding that is known for certain."""
        self._guessed = (self._guessed[0] or name, self._guessed[1] + 1)

    def folder(self, name: str) -> None:
        """There is a folder, perhaps without images."""
        if len(self._folders) < _MOST:
            self._folders.add(name)

    def place(self, place: Place, name: str) -> None:
        """An image has a class."""
        if place.is_nested:
            self._nested = (self._nested[0] or name, self._nested[1] + 1)
        self._validation |= place.is_validation
        if len(spellings := self._spellings[place.label]) < EXAMPLES:
            spellings.add(place.folder)

    @property
    def ignored(self) -> tuple[Ignored, ...]:
        """What was left out, by its reason."""
        return tuple(Ignored(reason, count, tuple(names)) for reason, (names, count) in self._ignored.items())

    def close(self, layout: Layout, classes: Sequence[ClassCount]) -> None:
        """All files have been seen."""
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
        notes.extend(_of_one_word(labels))
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


def _of_one_word(labels: set[str]) -> list[str]:
    """Classes that differ by case alone, which may be what is meant and may not."""
    by_fold = defaultdict(list)
    for label in sorted(labels):
        by_fold[label.casefold()].append(label)
    alike = [" and ".join(map(repr, found[:3])) for found in by_fold.values() if len(found) > 1]
    return [f"Classes differ by case alone: {', '.join(alike[:EXAMPLES])}."] if alike else []
