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

_PARCEL_FILES, _PARCEL_BYTES = 64, 1 << 20  # decoded at a time at most: about 0.1 s of work


class Originals:
    """Files by number, in packs in a scratch folder, until it is known which files are kept.

    Files that the archive stores uncompressed are decoded from the archive, others from the packs. Packs that nobody
    will read soon are written past the page cache.
    """

    def __init__(self, folder: Path, *, archive: Path | None) -> None:
        """Begin without files. ``archive`` must store every file uncompressed; None if there is no such archive."""
        self._folder, self._archive = folder, archive
        self._packs: list[PackWriter] = []
        self._firsts: list[int] = []  # number of the first file of each pack
        self._offsets, self._sizes = array("Q"), array("Q")
        self._waiting: list[int] = []  # offsets of files that are in no group yet, in the file that they are read from

    def groups(self, files: Iterable[Content]) -> Iterator[EncodedImages]:
        """Keep files, numbered in their order, and yield them in groups; the files of a group can be read at once."""
        for data, offset in files:
            if not self._packs or self._packs[-1].size >= LARGEST:
                yield from self._parcel()
                self._begin()
            read_at = kept_at = self._packs[-1].add(data)
            if self._archive is not None:
                assert offset is not None  # by the index every image is stored uncompressed
                read_at = offset
            if not self._fits(read_at, len(data)):
                yield from self._parcel()
            self._offsets.append(kept_at)
            self._sizes.append(len(data))
            self._waiting.append(read_at)
        yield from self._parcel()
        self._end()

    def store(self, staying: Sequence[int], blobs: BlobStore) -> tuple[tuple[Pack, ...], dict[int, tuple[str, int]]]:
        """Put the files of these numbers into the store; the packs, and by number each file's pack digest and offset.

        A pack that also has other files is rewritten without them.
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
            writer.path.unlink(missing_ok=True)  # packs of which no file is kept
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
        """Whether a file can join the waiting group: behind its files and near them, and the group is not full."""
        if not self._waiting:
            return True
        behind = offset >= self._waiting[-1] + self._sizes[-1]  # an archive may list its members in any order
        return behind and len(self._waiting) < _PARCEL_FILES and offset + size - self._waiting[0] <= _PARCEL_BYTES

    def _parcel(self) -> Iterator[EncodedImages]:
        """The waiting files as a group, if there are any; flushed, so that they can be read."""
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
