"""Packed copies of images: blobs of rows of one length, each row with a checksum of its own.

An increment reads a few rows of many shards (exemplars), or all rows of a few (a batch, evaluation images). The blob's
SHA-256 can only be checked when all bytes are read, so each row has a CRC-32 of its own. Layout, little-endian:
``ACSHARD1``, bytes of a row and number of rows (uint32 each), the CRC-32s (uint32 each), the rows.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from storage.blobs.store import BlobStore
from storage.errors import BlobDamaged

LARGEST = 64 << 20  # bytes of rows; bounds what is written, sent and dropped at a time
READ = 4 << 20  # bytes read at a time, about
WRITTEN = 1 << 20  # bytes written at a time, about: otherwise each row of a small image would cost a system call
_HEADER = struct.Struct("<8sII")
_MAGIC = b"ACSHARD1"


def rows_per_shard(row_bytes: int) -> int:
    """How many rows a shard holds at most: one, however long, and no more than fit into ``LARGEST`` bytes."""
    return max(1, LARGEST // row_bytes)


def write(path: Path, rows: Iterable[bytes], *, count: int, row_bytes: int) -> None:
    """Write ``count`` rows into a new file; raises ValueError for a row that is not ``row_bytes`` long."""
    checksums = []
    with path.open("xb", buffering=WRITTEN) as file:
        file.seek(_HEADER.size + 4 * count)
        for row in rows:
            if len(row) != row_bytes:
                raise ValueError(f"a row of {len(row)} bytes instead of {row_bytes}")
            checksums.append(zlib.crc32(row))
            file.write(row)
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, row_bytes, count) + struct.pack(f"<{count}I", *checksums))


def read(blobs: BlobStore, sha256: str, rows: Sequence[int], *, row_bytes: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and bytes of each of ``rows`` (distinct), ascending; raises `BlobMissing` and `BlobDamaged`."""
    header = next(blobs.parts(sha256, [(0, _HEADER.size)]))
    if len(header) < _HEADER.size or _HEADER.unpack(header)[:2] != (_MAGIC, row_bytes):
        raise _damaged(sha256, "it does not begin as a shard of such images does")
    count: int = _HEADER.unpack(header)[2]
    wanted = sorted(rows)
    if wanted and wanted[-1] >= count:
        raise _damaged(sha256, f"it has {count} rows, and row {wanted[-1]} is wanted")
    table = next(blobs.parts(sha256, [(_HEADER.size, 4 * count)]))
    if len(table) < 4 * count:
        raise _damaged(sha256, "it is cut off")
    checksums = struct.unpack(f"<{count}I", table)
    first = _HEADER.size + 4 * count
    runs = list(_runs(wanted, longest=max(1, READ // row_bytes)))
    spans = [(first + start * row_bytes, (stop - start) * row_bytes) for start, stop in runs]
    for (start, stop), data in zip(runs, blobs.parts(sha256, spans), strict=True):
        view = memoryview(data)
        for number in range(start, stop):
            row = view[(number - start) * row_bytes : (number - start + 1) * row_bytes]
            if len(row) < row_bytes or zlib.crc32(row) != checksums[number]:
                raise _damaged(sha256, f"row {number} is not the one that was written")
            yield number, row


def _runs(rows: Sequence[int], *, longest: int) -> Iterator[tuple[int, int]]:
    """Ranges (start, stop) of consecutive numbers, each at most ``longest`` long; ``rows`` are ascending."""
    if not rows:
        return
    start = rows[0]
    for before, after in pairwise(rows):
        if after != before + 1 or after - start >= longest:
            yield start, before + 1
            start = after
    yield start, rows[-1] + 1


def _damaged(sha256: str, why: str) -> BlobDamaged:
    return BlobDamaged(f"shard {sha256} is damaged: {why}", sha256=sha256)
