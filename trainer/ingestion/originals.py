"""The image files of an archive on their way into packs."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from storage.archives.members import Content
from storage.blobs.pack import LARGEST, PackWriter
from storage.blobs.store import BlobStore
from storage.domain import Pack
from trainer.ingestion.decoding import EncodedImages

_PARCEL_FILES, _PARCEL_BYTES = 64, 1 << 20  # that are decoded at a time: a tenth of a second's work, about


class Originals:
    """Files by number, in packs under a scratch folder until it is known which of them stay.

    They are decoded out of the archive where they lie there as they are, else out of the packs: those are written past
    the page cache if nobody has to read them.
    """

    def __init__(self, folder: Path, *, archive: Path | None) -> None:
        """Begin with none. ``archive``: every file to come lies in it as it is."""
        self._folder, self._archive = folder, archive
        self._packs: list[PackWriter] = []
        self._firsts: list[int] = []  # number of the first file of each pack
        self._offsets, self._sizes = array("Q"), array("Q")
        self._waiting: list[int] = []  # offsets of files that no group holds yet, where they will be read

    def groups(self, files: Iterable[Content]) -> Iterator[EncodedImages]:
        """Keep files, numbered as they come, and hand them on, several at a time; each can be read at once."""
        for data, offset in files:
            if not self._packs or self._packs[-1].size >= LARGEST:
                yield from self._parcel()
                self._begin()
            read_at = kept_at = self._packs[-1].add(data)
            if self._archive is not None:
                assert offset is not None  # the index has said that every image is stored
                read_at = offset
            if not self._fits(read_at, len(data)):
                yield from self._parcel()
            self._offsets.append(kept_at)
            self._sizes.append(len(data))
            self._waiting.append(read_at)
        yield from self._parcel()
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
        path = self._folder / f"pack-{len(self._packs)}"
        self._packs.append(PackWriter(path, read_soon=self._archive is None))

    def _end(self) -> None:
        if self._packs:
            self._packs[-1].close()

    def _fits(self, offset: int, size: int) -> bool:
        """Whether a file belongs into the group of those that wait: near them and behind them, and not too many."""
        if not self._waiting:
            return True
        behind = offset >= self._waiting[-1] + self._sizes[-1]  # an archive may list its members in any order
        return behind and len(self._waiting) < _PARCEL_FILES and offset + size - self._waiting[0] <= _PARCEL_BYTES

    def _parcel(self) -> Iterator[EncodedImages]:
        """The files that wait, if any do; written, so that they can be read."""
        if self._waiting:
            self._packs[-1].flush()
            path, first = self._archive or self._packs[-1].path, len(self._sizes) - len(self._waiting)
            yield EncodedImages(path, offsets=tuple(self._waiting), sizes=tuple(self._sizes[first:]), first=first)
            self._waiting.clear()

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
