"""The images of an archive, up to half a million, kept in columns instead of one record for each."""

import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

from storage.archives.layouts import Layout
from storage.domain import Split


class Member(NamedTuple):
    """One image of an archive."""

    name: str  # path within the archive, normalised
    label: str
    split: Split | None  # None where the archive brings no split of its own
    size: int  # bytes, as declared
    position: int  # where the archive's reader finds it

    @property
    def filename(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]


class Content(NamedTuple):
    """The bytes of one image of an archive."""

    data: bytes
    offset: int | None  # of the data in the archive's file; None if they are compressed there


class Files:
    """Names, sizes and positions in columns, which need a fifth of the memory of records."""

    def __init__(self) -> None:
        """Begin empty."""
        self.names: list[bytes] = []  # UTF-8: in a str, one rare character makes every character take four bytes
        self.sizes, self.positions = array("Q"), array("Q")

    def add(self, name: bytes, size: int, position: int) -> None:
        """Append one."""
        self.names.append(name)
        self.sizes.append(size)
        self.positions.append(position)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[bytes, int, int]]:
        return zip(self.names, self.sizes, self.positions, strict=True)


class Members(Sequence[Member]):
    """The images of an archive in its order; each record is made when it is asked for."""

    def __init__(self, files: Files, layout: Layout, *, has_test: bool) -> None:
        """Take files that all have a place in the layout."""
        self._files, self._layout, self._has_test = files, layout, has_test

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> list[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | list[Member]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._member(self._files.names[index], self._files.sizes[index], self._files.positions[index])

    def __iter__(self) -> Iterator[Member]:
        return (self._member(*file) for file in self._files)

    def _member(self, raw: bytes, size: int, position: int) -> Member:
        name = raw.decode()
        place = self._layout.place(name)
        if place is None:
            raise LookupError(f"{name!r} has no place in {self._layout.pattern}")
        split = place.split if self._has_test else None
        return Member(unicodedata.normalize("NFC", name), place.label, split, size, position)
