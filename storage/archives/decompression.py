"""The bytes of a file that may be compressed by gzip, bzip2 or xz, in order and in bounded memory."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from storage.errors import ArchiveUnreadable

CHUNK = 1 << 18
XZ_MEMORY = 256 << 20  # bytes to unpack with; the strongest preset, xz -9, needs 65 MiB


class Source(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        ...


class ForwardStream:
    """Unpacked bytes with a position that only moves forward."""

    def __init__(self, source: Source) -> None:
        """Begin at the first byte."""
        self._source = source
        self.is_file = isinstance(source, io.BufferedReader)  # not compressed
        self.position = 0

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes; fewer only at the end."""
        data = bytearray()
        while len(data) < size and (part := self._source.read(min(size - len(data), CHUNK))):
            data += part
        self.position += len(data)
        return bytes(data)

    def skip_to(self, position: int) -> None:
        """Skip bytes up to a position, or up to the end if that comes first."""
        if isinstance(self._source, io.BufferedReader):
            self._source.seek(position)
            self.position = position
        while self.position < position and (part := self._source.read(min(position - self.position, CHUNK))):
            self.position += len(part)


class Decompressor(Protocol):
    """The interface that the decompressors of bz2 and lzma share."""

    @property
    def eof(self) -> bool:
        """Whether its stream has ended."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether it needs more input before it can give more output."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Input that came after the end of its stream."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most ``max_length`` bytes of output; −1: no limit."""
        ...


class Streams:
    """Unpacked bytes of a bzip2 or xz file, one stream after the other.

    The standard library's BZ2File treats any other data after a stream as the end of the file, and its LZMAFile does
    not limit its memory.
    """

    def __init__(self, file: BinaryIO, begin: Callable[[], Decompressor]) -> None:
        """``begin`` makes a decompressor for each of the file's streams."""
        self._file, self._begin = file, begin
        self._decompressor = begin()

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end. Raises EOFError when the compressed data break off."""
        while True:
            fed = b""
            if self._decompressor.eof:
                fed = self._decompressor.unused_data.lstrip(b"\0")  # zeros may stand between streams
                while not fed and (part := self._file.read(CHUNK)):
                    fed = part.lstrip(b"\0")
                if not fed:
                    return b""
                self._decompressor = self._begin()
            elif self._decompressor.needs_input and not (fed := self._file.read(CHUNK)):
                raise EOFError("the compressed data break off")
            if data := self._decompressor.decompress(fed, size):
                return data


def _xz() -> Decompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


@contextmanager
def unpacked(path: Path) -> Iterator[ForwardStream]:
    """The archive's bytes, decompressed; raises `ArchiveUnreadable` when the compressed data are damaged."""
    with path.open("rb") as file:
        magic = file.peek(6)[:6]
        source: Source
        if magic.startswith(b"\x1f\x8b"):
            source = gzip.GzipFile(fileobj=file)
        elif magic.startswith(b"BZh"):
            source = Streams(file, bz2.BZ2Decompressor)
        elif magic == b"\xfd7zXZ\0":
            source = Streams(file, _xz)
        else:
            source = file
        try:
            yield ForwardStream(source)
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise ArchiveUnreadable(f"the compressed tar archive is truncated or damaged: {error}") from error
        except OSError as error:
            if error.errno is not None:  # the disk's fault, not the upload's
                raise
            raise ArchiveUnreadable(f"the compressed tar archive is damaged: {error}") from error
