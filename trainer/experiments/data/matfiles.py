"""Reading numeric arrays of MATLAB files of version 5, the format of SVHN (MathWorks, MAT-File Format, chapter 1)."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}


def read_mat(path: Path) -> dict[str, NDArray[Any]]:
    """Every real numeric array by name; raises ValueError for any other file."""
    data = memoryview(path.read_bytes())
    if len(data) < HEADER_BYTES or bytes(data[126:128]) != b"IM":  # little-endian, as every processor in use writes
        raise ValueError(f"{path.name} is no MATLAB file of version 5 in little-endian order")
    try:
        return dict(_array(body) for kind, body in _unpacked(data[HEADER_BYTES:]) if kind == _MATRIX)
    except (struct.error, zlib.error, KeyError, StopIteration, ValueError) as error:
        raise ValueError(f"{path.name} is damaged, or holds other than real numeric arrays") from error


def _unpacked(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    for kind, body in _elements(data):
        if kind == _COMPRESSED:
            yield from _elements(memoryview(zlib.decompress(body)))
        else:
            yield kind, body


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The data elements in order: type and content."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<2I", data, at)
        if kind >> 16:  # the small form: length, type and up to 4 bytes in 8
            length, kind, start, following = kind >> 16, kind & 0xFFFF, at + 4, at + 8
        else:
            start = at + 8
            following = start + length + (0 if kind == _COMPRESSED else -length % 8)
        if start + length > len(data):
            raise ValueError("the file breaks off")
        yield kind, data[start : start + length]
        at = following


def _array(body: memoryview) -> tuple[str, NDArray[Any]]:
    parts = _elements(body)
    (_, flags), (_, shape), (_, name), (kind, values) = (next(parts) for _ in range(4))
    dtype = _CLASSES[struct.unpack_from("<I", flags)[0] & 0xFF]
    numbers = np.frombuffer(values, dtype=f"<{_NUMBERS[kind]}").astype(dtype)  # stored in the smallest type that fits
    return bytes(name).decode("ascii"), numbers.reshape(np.frombuffer(shape, dtype="<i4"), order="F")
