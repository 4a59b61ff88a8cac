"""Tar archives, plain or compressed by gzip, bzip2 or xz, read once from front to back in bounded memory.

The standard library's tarfile takes a damaged header for the end of the archive, reads a name of any size a header
claims, keeps every header it has seen and searches them in quadratic time; an upload may not. So the headers are
read here: the ustar format (POSIX.1-2017, pax, "ustar Interchange Format") with the long names of GNU and pax.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from storage.archive_members import Content
from storage.archive_names import Entry, shown, unsafe
from storage.errors import ArchiveUnreadable

BLOCK = 512
CHUNK = 1 << 18
HEADER_BYTES = 1 << 18  # of all headers of one member: long names and attributes fit many times over
PADDING_BYTES = 1 << 20  # after the end mark; writers fill up to a multiple of their blocking factor
XZ_MEMORY = 256 << 20  # bytes to unpack with; the strongest preset, xz -9, needs 65 MiB
FILE, FOLDER, GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL = b"0", b"5", b"L", b"K", b"x", b"g"
REFUSED = {b"1": "is a hard link", b"2": "is a symbolic link", b"3": "is a device", b"4": "is a device"}


class Source(Protocol):
    """Bytes that come in order."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


class Header(NamedTuple):
    """What one block says."""

    name: bytes
    size: int  # bytes of the data that follow
    kind: bytes  # typeflag


class ForwardStream:
    """Unpacked bytes with a position that only moves forward."""

    def __init__(self, source: Source) -> None:
        """Begin at the first byte."""
        self._source = source
        self.is_file = isinstance(source, io.BufferedReader)  # as it lies on the disk
        self.position = 0

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, fewer only at the end."""
        data = bytearray()
        while len(data) < size and (part := self._source.read(min(size - len(data), CHUNK))):
            data += part
        self.position += len(data)
        return bytes(data)

    def skip_to(self, position: int) -> None:
        """Pass over bytes up to a position, or up to the end where that comes first."""
        if isinstance(self._source, io.BufferedReader):
            self._source.seek(position)
            self.position = position
        while self.position < position and (part := self._source.read(min(position - self.position, CHUNK))):
            self.position += len(part)


class XzSource:
    """Unpacked bytes of an xz file; the standard library's LZMAFile sets no bound to the memory it takes."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin with the first of the file's streams."""
        self._file = file
        self._decompressor = self._fresh()

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        while True:
            fed = b""
            if self._decompressor.eof:
                fed = self._decompressor.unused_data.lstrip(b"\0")  # zeros may stand between streams
                while not fed and (part := self._file.read(CHUNK)):
                    fed = part.lstrip(b"\0")
                if not fed:
                    return b""
                self._decompressor = self._fresh()
            elif self._decompressor.needs_input and not (fed := self._file.read(CHUNK)):
                raise EOFError("the compressed data break off")
            if data := self._decompressor.decompress(fed, size):
                return data

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


def entries(path: Path) -> Iterator[Entry]:
    """Every file and folder in the order of the archive; refuses whatever is neither.

    A tar has no directory, so all of it is unpacked once to get from header to header.
    """
    with _unpacked(path) as stream:
        empty = True
        while (header := _member(stream)) is not None:
            if header.kind not in {FILE, FOLDER}:
                raise unsafe(header.name, REFUSED.get(header.kind, "is no plain file") + ": send plain files only")
            empty, start = False, stream.position
            yield Entry(header.name, header.size, start, header.kind == FOLDER, stream.is_file)
            if header.kind == FILE:
                stream.skip_to(start + _blocks(header.size))
        if empty:
            raise ArchiveUnreadable("the tar archive is empty: send one with images in class folders")
        # Reading on to the end lets gzip, bzip2 and xz compare their checksums.
        if len(stream.read(PADDING_BYTES)) == PADDING_BYTES:
            raise ArchiveUnreadable("the tar archive has other data after its end mark")


def contents(path: Path, wanted: Iterable[tuple[str, int, int]]) -> Iterator[Content]:
    """The bytes of members given as (name, position, size) in the order of the archive."""
    with _unpacked(path) as stream:
        for name, position, size in wanted:
            stream.skip_to(position)
            data = stream.read(size)
            if len(data) != size:
                raise ArchiveUnreadable(f"the tar archive is truncated in member {shown(name)}")
            yield Content(data, position if stream.is_file else None)


@contextmanager
def _unpacked(path: Path) -> Iterator[ForwardStream]:
    """The archive's bytes without compression; what goes wrong in unpacking is ArchiveUnreadable."""
    with path.open("rb") as file:
        magic = file.peek(6)[:6]
        source: Source
        if magic.startswith(b"\x1f\x8b"):
            source = gzip.GzipFile(fileobj=file)
        elif magic.startswith(b"BZh"):
            source = bz2.BZ2File(file)
        elif magic == b"\xfd7zXZ\0":
            source = XzSource(file)
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


def _member(stream: ForwardStream) -> Header | None:
    """The next member with what the extended headers before it say, or None at the end mark."""
    name: bytes | None = None
    size: int | None = None
    allowance = HEADER_BYTES
    while (header := _block(stream)) is not None:
        if header.kind not in {GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL}:
            return Header(name or header.name, header.size if size is None else size, header.kind)
        allowance -= BLOCK + _blocks(header.size)
        if allowance < 0:
            raise unsafe(header.name, f"has headers of more than {HEADER_BYTES:,} bytes")
        data = stream.read(_blocks(header.size))[: header.size]
        if header.kind == GNU_NAME:
            name = data.rstrip(b"\0")
        elif header.kind == PAX:
            records = _pax_records(data)
            if any(key.startswith(b"GNU.sparse.") for key in records):
                raise unsafe(header.name, "is a sparse file: send plain files only")
            name = records.get(b"path", name)
            size = _number(records[b"size"], base=10) if b"size" in records else size
    return None


def _block(stream: ForwardStream) -> Header | None:
    """One header block, or None for the zeros at the end."""
    first = stream.position == 0
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        what = "the upload is neither a zip nor a tar archive" if first else "the tar archive is truncated"
        raise ArchiveUnreadable(f"{what}: send a whole zip, tar, tar.gz, tar.bz2 or tar.xz")
    if not any(block):
        return None
    checksum = sum(block[:148]) + sum(b" " * 8) + sum(block[156:])
    if checksum != _number(block[148:156], base=8):
        if first:
            raise ArchiveUnreadable("the upload is neither a zip nor a tar archive (tar.gz, tar.bz2, tar.xz)")
        raise ArchiveUnreadable(f"the tar archive is damaged: no header at byte {stream.position - BLOCK:,}")
    name, prefix = _text(block[:100]), _text(block[345:500])
    if prefix and block[257:263] == b"ustar\0":  # GNU's older format has other things there
        name = prefix + b"/" + name
    kind = block[156:157]
    if kind in {b"\0", b"7"}:
        kind = FILE
    if kind == FILE and name.endswith(b"/"):  # how the seventh edition wrote folders
        kind = FOLDER
    return Header(name, _number(block[124:136], base=8), kind)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Records of the form ``length key=value newline``."""
    records = {}
    while data:
        digits, _, _ = data[:20].partition(b" ")
        length = _number(digits, base=10)
        key, equals, value = data[len(digits) + 1 : length].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ArchiveUnreadable("the tar archive is damaged: a pax header cannot be read")
        records[key], data = value[:-1], data[length:]
    return records


def _number(field: bytes, *, base: int) -> int:
    """A count in digits, or in GNU's binary form for large ones; never negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or len(digits) > 20:
        raise ArchiveUnreadable(f"the tar archive is damaged: {shown(field)} is no number")
    try:
        return int(digits, base)
    except ValueError:  # an 8 or 9 in an octal field
        raise ArchiveUnreadable(f"the tar archive is damaged: {shown(field)} is no number") from None


def _text(field: bytes) -> bytes:
    """A field up to its first zero."""
    return field.partition(b"\0")[0]


def _blocks(size: int) -> int:
    """Bytes that data of a size fill."""
    return -(-size // BLOCK) * BLOCK
