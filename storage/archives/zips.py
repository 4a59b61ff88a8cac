"""Zip archives read from their central directory as a stream: memory does not grow with the number of entries.

The standard library's ZipFile builds a record of half a kilobyte for every entry before it gives access to the first.
A hostile upload of 50 MB with a million entries would cost the service 700 MB. This module supports only what archives
of images need: stored and deflated members in one file. Layout: PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.16 and
4.5.3.
"""

import stat
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from storage.archives.members import Content
from storage.archives.names import NOT_UTF8, Entry, decoded, shown, unsafe
from storage.errors import AccreteError, ArchiveUnreadable, ArchiveUnsafe

LOCAL = struct.Struct("<4s5H3L2H")  # local file header, 4.3.7
CENTRAL = struct.Struct("<4s6H3L5H2L")  # central directory header, 4.3.12
END = struct.Struct("<4s4H2LH")  # end of central directory, 4.3.16
END64 = struct.Struct("<4sQ2H2L4Q")  # zip64 end of central directory, 4.3.14
LOCATOR = struct.Struct("<4sLQL")  # zip64 end of central directory locator, 4.3.15
ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13  # flags: traditional, strong, masked headers (4.4.4)
UTF8 = 1 << 11  # flag: the name is UTF-8 (appendix D)
LEGACY = "cp437"  # encoding of other names (appendix D); but many writers put UTF-8 there, which is tried first
STORED, DEFLATED = 0, 8
WIDE, UNICODE_PATH = 0x0001, 0x7075  # extra fields: 64-bit sizes (4.5.3), a name in UTF-8 (4.6.9)
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF  # "look into the zip64 record"
CHUNK = 1 << 16
FEW = 64  # bytes read for an extra field before the data: enough for times and owners, or for 64-bit sizes


class Directory(NamedTuple):
    """Where the central directory is (in bytes), and how many entries it declares."""

    start: int
    size: int
    entries: int


class Record(NamedTuple):
    """One entry of the central directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed: int  # bytes in the archive
    size: int  # bytes unpacked, as declared
    mode: int  # Unix file mode, or 0
    header: int  # position of its local header
    position: int  # of this entry
    end: int  # of this entry
    unicode_name: bytes | None  # UTF-8, from an extra field beside a name in a code page


def is_zip(path: Path) -> bool:
    """Whether a file begins like a zip archive, or like a Windows program (a self-extracting archive)."""
    with path.open("rb") as file:
        return file.read(4) in {b"PK\3\4", b"PK\5\6"} or (file.seek(0) == 0 and file.read(2) == b"MZ")


def entries(path: Path, limit: int) -> Iterator[Entry]:
    """Every entry in the order of the directory.

    Raises `ArchiveUnsafe` before the first entry if the directory declares more than ``limit``, and after the last if
    entries overlap. Raises `ArchiveUnreadable` if the archive is empty, damaged or one part of several.
    """
    with path.open("rb") as file:
        directory = _directory(file)
        if directory.entries > limit:
            raise ArchiveUnsafe(f"the archive is refused: {directory.entries:,} members, {limit:,} at most are allowed")
        if directory.entries == 0:
            raise ArchiveUnreadable("the zip archive is empty: send one with images in class folders")
        spans = _Spans(directory.start)
        position = directory.start
        for _ in range(directory.entries):
            record = _record(file, position, directory)
            position = record.end
            spans.add(record)
            yield _entry(record)
        if position != directory.start + directory.size:
            raise ArchiveUnreadable("the zip archive is damaged: its directory has other entries than it says")
        spans.check()


def contents(path: Path, wanted: Iterable[tuple[str, int, int]]) -> Iterator[Content]:
    """The bytes of members given as (name, position, size), checked against size and CRC-32."""
    with path.open("rb") as listing, path.open("rb", buffering=0) as file:  # one for the directory, one for the data
        directory = _directory(listing)
        for name, position, size in wanted:
            yield _content(file, _record(listing, position, directory), name, size)


def _directory(file: BinaryIO) -> Directory:
    """Find the central directory from the end of the file; only its end records may follow it."""
    length = file.seek(0, 2)
    tail = min(length, END.size + FULL_16)
    file.seek(length - tail)
    buffer = file.read(tail)
    at = buffer.rfind(b"PK\5\6")
    while at >= 0:
        if at + END.size <= len(buffer) and at + END.size + END.unpack_from(buffer, at)[7] == len(buffer):
            break
        at = buffer.rfind(b"PK\5\6", 0, at)
    if at < 0:
        what = "is truncated" if b"PK\5\6" not in buffer else "has other data after its end, or is truncated"
        raise ArchiveUnreadable(f"the zip archive {what}: its directory is not the last part of it")
    end = length - tail + at
    _, disk, first_disk, here, count, size, start, _ = END.unpack_from(buffer, at)
    if FULL_16 in (here, count) or FULL_32 in (size, start):
        end, disk, first_disk, here, count, size, start = _zip64(
            file, end, (disk, first_disk, here, count, size, start)
        )
    if disk or first_disk or here != count:
        raise ArchiveUnreadable("the zip archive is one part of several: send it as one file")
    if start + size != end or count * CENTRAL.size > size:
        raise ArchiveUnreadable("the zip archive is damaged, or other data was put before or into it: send a plain zip")
    return Directory(start, size, count)


def _zip64(
    file: BinaryIO, end: int, plain: tuple[int, int, int, int, int, int]
) -> tuple[int, int, int, int, int, int, int]:
    """Position of the zip64 end record and its counts, or the plain ones where there is no such record."""
    file.seek(max(end - LOCATOR.size, 0))
    locator = file.read(LOCATOR.size)
    if end < LOCATOR.size or locator[:4] != b"PK\6\7":
        return (end, *plain)  # exactly 65,535 entries need no zip64
    position = LOCATOR.unpack(locator)[2]
    file.seek(min(position, end))
    found = file.read(END64.size)
    if len(found) < END64.size or found[:4] != b"PK\6\6":
        raise ArchiveUnreadable("the zip archive is damaged: its zip64 directory is not where it says")
    _, _, _, _, disk, first_disk, here, count, size, start = END64.unpack(found)
    return position, disk, first_disk, here, count, size, start


def _record(file: BinaryIO, position: int, directory: Directory) -> Record:
    """The directory entry at a position."""
    file.seek(position)
    fixed = file.read(CENTRAL.size)
    if len(fixed) < CENTRAL.size or fixed[:4] != b"PK\1\2":
        raise ArchiveUnreadable("the zip archive is damaged: its directory breaks off")
    fields = CENTRAL.unpack(fixed)
    (_, _, _, flags, method, _, _, crc, compressed, size) = fields[:10]
    name_length, extra_length, comment_length, _, _, external, header = fields[10:]
    end = position + CENTRAL.size + name_length + extra_length + comment_length
    if end > directory.start + directory.size:
        raise ArchiveUnreadable("the zip archive is damaged: its directory is longer than it says")
    name, extra = file.read(name_length), b""
    if FULL_32 in (size, compressed, header) or not (name.isascii() or flags & UTF8):
        extra = file.read(extra_length)
    if FULL_32 in (size, compressed, header):
        size, compressed, header = _wide(extra, (size, compressed, header))
    mode, other = external >> 16, _unicode_path(extra, name)
    return Record(name, flags, method, crc, compressed, size, mode, header, position, end, other)


def _wide(extra: bytes, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
    """Sizes and position, with the 64-bit values of the extra field (4.5.3).

    The field holds only the values whose 32 bits are all set in the entry, in this order.
    """
    missing = narrow.count(FULL_32)
    found = _extra(extra, WIDE)
    if found is None or len(found) < 8 * missing:
        raise ArchiveUnreadable("the zip archive is damaged: a zip64 size is missing")
    values = iter(struct.unpack_from(f"<{missing}Q", found))
    size, compressed, header = (next(values) if value == FULL_32 else value for value in narrow)
    return size, compressed, header


def _unicode_path(extra: bytes, name: bytes) -> bytes | None:
    """The UTF-8 name in an extra field (4.6.9); None without one, or if its CRC-32 shows that the entry was renamed."""
    field = _extra(extra, UNICODE_PATH)
    if field is None or len(field) < 6 or field[0] != 1 or int.from_bytes(field[1:5], "little") != zlib.crc32(name):
        return None
    return field[5:]


def _extra(extra: bytes, wanted: int) -> bytes | None:
    """The first extra field of a kind, if it is whole."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == wanted:
            return extra[at + 4 : at + 4 + length] if at + 4 + length <= len(extra) else None
        at += 4 + length
    return None


def _entry(record: Record) -> Entry:
    """The entry of a record; without a flag or extra field for UTF-8, the name is UTF-8 if it is valid, else CP437."""
    fault, is_guessed = _fault(record), False
    raw = record.unicode_name if record.unicode_name is not None else record.name
    if record.flags & UTF8 or record.unicode_name is not None:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name, fault = raw.decode(errors="replace"), unsafe(raw, f"{NOT_UTF8}, although it says so")
    else:
        name, is_guessed = decoded(raw, legacy=LEGACY)
    is_folder = name.endswith(("/", "\\"))
    return Entry(name, record.size, record.position, is_folder, record.method == STORED, fault, is_guessed)


def _fault(record: Record) -> AccreteError | None:
    """Why an entry cannot be taken, such as encryption, a link or an unknown compression; None if it can."""
    if record.flags & ENCRYPTED:
        return unsafe(record.name, "is encrypted: send it without a password")
    if stat.S_ISLNK(record.mode):
        return unsafe(record.name, "is a symbolic link: send the file itself")
    if stat.S_IFMT(record.mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return unsafe(record.name, "is no plain file")
    if record.method not in {STORED, DEFLATED}:
        detail = f"zip member {shown(record.name)} is compressed by method {record.method}: use deflate or none"
        return ArchiveUnreadable(detail)
    if record.method == STORED and record.compressed != record.size:
        return unsafe(record.name, "lies about its size")
    return None


class _Spans:
    """The byte range of each entry; overlapping ranges would let a small archive unpack to a huge size."""

    def __init__(self, stop: int) -> None:
        """``stop`` is where the directory begins."""
        self.stop = stop
        self.starts, self.ends = array("Q"), array("Q")

    def add(self, record: Record) -> None:
        """Add an entry's range, without its local extra field, whose length is not in the directory.

        Raises `ArchiveUnreadable` if the range reaches into the directory.
        """
        end = record.header + LOCAL.size + len(record.name) + record.compressed
        if end > self.stop:
            raise ArchiveUnreadable(f"the zip archive is damaged: member {shown(record.name)} reaches out of it")
        self.starts.append(record.header)
        self.ends.append(end)

    def check(self) -> None:
        """Raise `ArchiveUnsafe` if ranges overlap."""
        order = sorted(range(len(self.starts)), key=self.starts.__getitem__)
        for before, after in pairwise(order):
            if self.ends[before] > self.starts[after]:
                raise ArchiveUnsafe("the archive is refused: entries overlap, which makes small archives unpack huge")


def _content(file: BinaryIO, record: Record, name: str, size: int) -> Content:
    """Unpack one member, stopping one byte past its declared size."""
    is_stored = record.method == STORED
    ahead = record.compressed + FEW if is_stored and record.compressed <= CHUNK else 0  # small ones in one read
    file.seek(record.header)
    head = file.read(LOCAL.size + len(record.name) + ahead)
    if len(head) < LOCAL.size or head[:4] != b"PK\3\4":
        raise ArchiveUnreadable(f"the zip archive is damaged: member {shown(name)} is not where it should be")
    name_length, extra_length = LOCAL.unpack_from(head)[9:]
    if head[LOCAL.size : LOCAL.size + name_length] != record.name:
        raise unsafe(name, "has another name in the archive than in its directory")
    start = LOCAL.size + name_length + extra_length
    offset = record.header + start
    if len(head) >= start + size and is_stored:
        data = head[start : start + size]
    else:
        file.seek(offset)
        data = file.read(size) if is_stored else _inflate(file, record, name)
    if len(data) != size or size != record.size or zlib.crc32(data) != record.crc:
        raise ArchiveUnreadable(f"the zip archive is damaged: member {shown(name)} has a wrong checksum or length")
    return Content(data, offset if is_stored else None)


def _inflate(file: BinaryIO, record: Record, name: str) -> bytes:
    """Decompress a member; raises `ArchiveUnsafe` as soon as the output is larger than declared."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    produced, left = bytearray(), record.compressed
    try:
        while not decompressor.eof:
            fed = decompressor.unconsumed_tail
            if not fed:
                fed = file.read(min(CHUNK, left))
                left -= len(fed)
            if not fed:
                break
            produced += decompressor.decompress(fed, record.size + 1 - len(produced))
            if len(produced) > record.size:
                raise unsafe(name, "unpacks to more than it declares")
    except zlib.error as error:
        raise ArchiveUnreadable(f"the zip archive is damaged: member {shown(name)}: {error}") from error
    if not decompressor.eof or left or decompressor.unused_data:
        raise ArchiveUnreadable(f"the zip archive is damaged: member {shown(name)} breaks off")
    return bytes(produced)
