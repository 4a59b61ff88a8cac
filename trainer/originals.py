"""The image files of an archive on their way into packs."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from storage import packs
from storage.blobs import BlobStore
from storage.domain import Pack
from storage.packs import PackWriter
from trainer.decoding import Parcel

_PARCEL_FILES, _PARCEL_BYTES = 64, 1 << 20  # that are decoded at a time: a tenth of a second's work, about


class Originals:
    """Files by number, in packs under a scratch folder until it is known which of them stay."""

    def __init__(self, folder: Path) -> None:
        """Begin with none."""
        self._folder = folder
        self._packs: list[PackWriter] = []
        self._firsts: list[int] = []  # number of the first file of each pack
        self._offsets, self._sizes = array("Q"), array("Q")

    def parcels(self, files: Iterable[bytes]) -> Iterator[Parcel]:
        """Keep files, numbered as they come, and hand them on, several at a time; each can be read at once."""
        begun = 0
        for data in files:
            if not self._packs or self._packs[-1].size >= packs.LARGEST:
                if begun < len(self._sizes):
                    yield self._parcel(begun)
                    begun = len(self._sizes)
                self._begin()
            self._offsets.append(self._packs[-1].add(data))
            self._sizes.append(len(data))
            count = len(self._sizes) - begun
            if count == _PARCEL_FILES or self._offsets[-1] + len(data) - self._offsets[begun] >= _PARCEL_BYTES:
                yield self._parcel(begun)
                begun = len(self._sizes)
        if begun < len(self._sizes):
            yield self._parcel(begun)
        self._end()

    def store(self, staying: Sequence[int], blobs: BlobStore) -> tuple[tuple[Pack, ...], dict[int, tuple[str, int]]]:
        """Put the files that stay into the store; the packs, and where each file is: digest and offset, by number.

        A pack with files that do not stay is written again without them.
        """
        stored, places = [], {}
        for which, members in groupby(sorted(staying), key=lambda number: bisect_right(self._firsts, number) - 1):
            numbers = list(members)
            writer, offsets = self._packs[which], [self._offsets[number] for number in numbers]
            if sum(self._sizes[number] for number in numbers) < writer.size:
                writer, offsets = self._again(writer, numbers)
            pack = writer.store(blobs)
            stored.append(pack)
            places.update({number: (pack.digest, offset) for number, offset in zip(numbers, offsets, strict=True)})
        for writer in self._packs:
            writer.path.unlink(missing_ok=True)  # of which nothing stays
        return tuple(stored), places

    def _begin(self) -> None:
        self._end()
        self._firsts.append(len(self._sizes))
        self._packs.append(PackWriter(self._folder / f"pack-{len(self._packs)}"))

    def _end(self) -> None:
        if self._packs:
            self._packs[-1].close()

    def _parcel(self, begun: int) -> Parcel:
        writer = self._packs[-1]
        writer.flush()
        return Parcel(writer.path, offset=self._offsets[begun], sizes=tuple(self._sizes[begun:]), first=begun)

    def _again(self, writer: PackWriter, numbers: Sequence[int]) -> tuple[PackWriter, list[int]]:
        again = PackWriter(writer.path.with_suffix(".again"))
        with writer.path.open("rb") as file:
            offsets = []
            for number in numbers:
                file.seek(self._offsets[number])
                offsets.append(again.add(file.read(self._sizes[number])))
                again.flush()
        again.close()
        writer.path.unlink()
        return again, offsets
