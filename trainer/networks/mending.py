"""Image files with a fault that no viewer minds: what Pillow refuses is made readable, where every pixel is there."""

import hashlib
import io
import random
import re
import zlib
from collections.abc import Iterator

from PIL import Image

_PNG, _JPEG, _END_OF_IMAGE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"
_END_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
_SEGMENT = re.compile(rb"\xff+([\xc0-\xcf\xda-\xfe])(..)", re.DOTALL)  # a mark and the length of what belongs to it
_MARK = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # that ends a scan's data
_FRAMES, _SCAN = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, 0xDA
_COEFFICIENTS = 64
_CRITICAL = frozenset([b"IHDR", b"PLTE", b"IDAT", b"IEND"])
_OF_PIXELS = frozenset([b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"])  # ancillary, and what the picture looks like
_TAILS = tuple(bytes(random.Random(seed).choices(range(1, 255), k=256)) for seed in (1, 2))  # no byte is a mark's


def mended(data: bytes, *, max_pixels: int) -> bytes | None:
    """The file without such a fault, or None where it has none of these.

    A PNG file: long or damaged texts and profiles are left out, a missing end mark is added. A JPEG file: a missing
    end mark is added if no pixel depends on what follows.
    """
    if data.startswith(_PNG):
        return _PNG + b"".join(_chunks_of_pixels(data))
    if data.startswith(_JPEG) and not data.endswith(_END_OF_IMAGE):
        return _ended(data.removesuffix(_END_OF_IMAGE[:1]), max_pixels=max_pixels)
    return None


def _chunks_of_pixels(data: bytes) -> Iterator[bytes]:
    """The chunks that decide what a PNG file shows; ancillary ones only where their checksum is right (PNG §13)."""
    view, at = memoryview(data), len(_PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        is_whole = end <= len(data)
        if kind in _CRITICAL or (kind in _OF_PIXELS and is_whole and _has_its_sum(view[at:end])):
            yield bytes(view[at:end])
        if kind == b"IEND" or not is_whole:
            return
        at = end
    yield _END_CHUNK


def _has_its_sum(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _ended(data: bytes, *, max_pixels: int) -> bytes | None:
    """A JPEG file with its end mark, unless it breaks off before its last pixel.

    The decoder fills up with grey what is missing, and does not say so. So other bytes are put in its place: pixels
    that are all there stay the same.
    """
    whole = data + _END_OF_IMAGE
    try:
        if not _has_every_scan(data):
            return None
        shown = {_digest(file, max_pixels) for file in (whole, *(data + tail + _END_OF_IMAGE for tail in _TAILS))}
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - hostile bytes make Pillow's readers raise almost anything
        return None
    return whole if len(shown) == 1 else None


def _has_every_scan(data: bytes) -> bool:
    """Whether a JPEG file goes on to a scan after which no bit of any coefficient is to come (ITU-T T.81 §B.2, §G.1).

    A progressive one that breaks off between two scans looks whole, if a little blurred.
    """
    components, exact = set[int](), set[tuple[int, int]]()  # by number; (component, coefficient)
    at = 2
    while segment := _SEGMENT.match(data, at):
        kind, length = segment[1][0], int.from_bytes(segment[2], "big")
        start, at = segment.end(), segment.end() - 2 + length
        if at > len(data):
            return False
        if kind in _FRAMES:
            components = set(data[start + 6 : at : 3])
        elif kind == _SCAN:
            first, last, bit = data[at - 3], data[at - 2], data[at - 1] & 0xF
            named = data[start + 1 : at - 3 : 2]
            exact.update((one, k) for one in named for k in range(first, last + 1) if bit == 0)
            following = _MARK.search(data, at)
            at = following.start() if following else len(data)
    return at == len(data) and bool(components) and len(exact) >= _COEFFICIENTS * len(components)


def _digest(data: bytes, max_pixels: int) -> bytes:
    """SHA-256 of the pixels."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.width * image.height > max_pixels:
            raise ValueError("more pixels than allowed")
        return hashlib.sha256(image.tobytes()).digest()
