"""Tar archives, plain or compressed by gzip, bzip2 or xz, read once from front to back in bounded memory.

The standard library's tarfile is not safe for uploads. It takes a damaged header for the end of the archive, reads a
name of any size that a header declares, keeps all headers in memory and searches them in quadratic time. So this
module reads the headers itself: the ustar format (POSIX.1-2017, pax, "ustar Interchange Format") with the long names of
GNU and pax.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from storage.archives.decompression import ForwardStream, unpacked
from storage.archives.members import Content
from storage.archives.names import Entry, decoded, shown, unsafe
from storage.errors import ArchiveUnreadable

BLOCK = 512
HEADER_BYTES = 1 << 18  # of all headers of one member: long names and attributes fit many times over
PADDING_BYTES = 256 << 20  # zeros after an end mark; writers fill up to a multiple of their blocking factor
LEGACY = "cp1252"  # assumed encoding of names that are not UTF-8: a tar archive does not state it
FILE, FOLDER, GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL, SPARSE, VOLUME = b"0", b"5", b"L", b"K", b"x", b"g", b"S", b"V"
WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", FOLDER, b"6", VOLUME))  # no data follow, whatever size is declared
_SEND = "send a whole zip, tar, tar.gz, tar.bz2 or tar.xz"
_OTHER_KINDS = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\x1f\x9d": "compressed by compress",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
REFUSED = {b"1": "is a hard link", b"2": "is a symbolic link", b"3": "is a device", b"4": "is a device"}


class Header(NamedTuple):
    """The fields of a header block."""

    name: bytes
    size: int  # bytes of the data that follow
    kind: bytes  # typeflag


def entries(path: Path) -> Iterator[Entry]:
    """Every entry in the order of the archive; one that is neither a file nor a folder carries a fault.

    A tar archive has no directory, so all of it is decompressed once to find the headers. Raises `ArchiveUnreadable`
    if the archive is empty, truncated or damaged, and `ArchiveUnsafe` for sparse files and oversized headers.
    """
    with unpacked(path) as stream:
        empty = True
        while (header := _member(stream)) is not None:
            if header.kind == VOLUME:
                continue
            empty, start = False, stream.position
            yield _entry(header, start, is_stored=stream.is_file)
            if header.kind not in WITHOUT_DATA:
                stream.skip_to(start + _blocks(header.size))
        if empty:
            raise ArchiveUnreadable("the tar archive is empty: send one with images in class folders")


def _entry(header: Header, start: int, *, is_stored: bool) -> Entry:
    """The entry of a header, with its name decoded."""
    if header.kind == SPARSE:  # its header does not say where its data end
        raise unsafe(header.name, "is a sparse file: send plain files only")
    fault = None
    if header.kind not in {FILE, FOLDER}:
        fault = unsafe(header.name, REFUSED.get(header.kind, "is no plain file") + ": send plain files only")
    name, is_guessed = decoded(header.name, legacy=LEGACY)
    return Entry(name, header.size, start, header.kind == FOLDER, is_stored, fault, is_guessed)


def contents(path: Path, wanted: Iterable[tuple[str, int, int]]) -> Iterator[Content]:
    """The bytes of members given as (name, position, size) in the order of the archive."""
    with unpacked(path) as stream:
        for name, position, size in wanted:
            stream.skip_to(position)
            data = stream.read(size)
            if len(data) != size:
                raise ArchiveUnreadable(f"the tar archive is truncated in member {shown(name)}")
            yield Content(data, position if stream.is_file else None)


def _member(stream: ForwardStream) -> Header | None:
    """The next member, with name and size from the extended headers before it, or None at the end mark."""
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
    """The next header block, or None at the end.

    Another archive may follow the zeros that end the first one (``tar -A``, ``cat``).
    """
    first = stream.position == 0
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        if first:
            raise ArchiveUnreadable(f"the upload is {_other_kind(block)}: {_SEND}")
        raise ArchiveUnreadable(f"the tar archive is truncated: {_SEND}")
    following = block if any(block) else _after_zeros(stream)
    if following is None:
        return None
    if not _has_its_sum(following):
        if first and following is block:
            raise ArchiveUnreadable(f"the upload is {_other_kind(block)}: {_SEND}")
        at = f"byte {stream.position - len(following):,}"
        what = f"is damaged: no header at {at}" if following is block else f"has other data after its end mark, at {at}"
        raise ArchiveUnreadable(f"the tar archive {what}: {_SEND}")
    return _header(following)


def _after_zeros(stream: ForwardStream) -> bytes | None:
    """The first block after the zeros of an end mark that is not zero, or None.

    Reading to the end also makes gzip, bzip2 and xz verify their checksums.
    """
    for _ in range(PADDING_BYTES // BLOCK):
        block = stream.read(BLOCK)
        if any(block):
            return block
        if len(block) < BLOCK:
            return None
    raise ArchiveUnreadable(f"the tar archive has more than {PADDING_BYTES:,} zeros after its end mark: {_SEND}")


def _has_its_sum(block: bytes) -> bool:
    """Whether a block has a header's checksum: the sum of its bytes, unsigned, or signed as on old Sun systems."""
    if len(block) < BLOCK:
        return False
    plain = block[:148] + b" " * 8 + block[156:]
    return _number(block[148:156], base=8) in {sum(plain), sum(plain) - 256 * sum(byte > 127 for byte in plain)}


def _other_kind(start: bytes) -> str:
    """The kind of an upload that is neither zip nor tar, for an error message."""
    found = [kind for magic, kind in _OTHER_KINDS.items() if start.startswith(magic)]
    return f"{found[0]}, neither a zip nor a tar archive" if found else "neither a zip nor a tar archive"


def _header(block: bytes) -> Header:
    """The fields of a block with a correct checksum."""
    name, prefix = _text(block[:100]), _text(block[345:500])
    if prefix and block[257:263] == b"ustar\0":  # GNU's older format has other fields there
        name = prefix + b"/" + name
    kind = block[156:157]
    if kind in {b"\0", b"7"}:
        kind = FILE
    if kind == FILE and name.endswith(b"/"):  # as Unix V7 wrote folders
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
    """Bytes that data of this size take up in whole blocks."""
    return -(-size // BLOCK) * BLOCK
