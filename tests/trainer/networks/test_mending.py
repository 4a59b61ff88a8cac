"""Image files with a fault that no viewer minds are read as the whole ones are; what lacks pixels is refused."""

import io
import random
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer.networks.pictures import Form, ImageRejected, decode

SIZE = (67, 45)
JPEGS = [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 95, "subsampling": 0}, {"optimize": True}]
LONG = "a parameter of the program that made it " * 50_000  # 2 MB, which generators of pictures write


def noise(seed: int = 1) -> Image.Image:
    return Image.frombytes("RGB", SIZE, random.Random(seed).randbytes(3 * SIZE[0] * SIZE[1]))


def jpeg(seed: int = 1, **options: object) -> bytes:
    buffer = io.BytesIO()
    noise(seed).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def png(**options: object) -> bytes:
    buffer = io.BytesIO()
    noise().save(buffer, "PNG", **options)
    return buffer.getvalue()


def with_text(texts: dict[str, str], *, kind: str = "add_text") -> bytes:
    info = PngInfo()
    for name, text in texts.items():
        getattr(info, kind)(name, text, zip=True)
    return png(pnginfo=info)


def chunk(kind: bytes, data: bytes, *, checksum: int = 0) -> bytes:
    """A PNG chunk whose checksum is off by so much."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ checksum)


def pixels(data: bytes) -> bytes:
    return decode(data, channels=3).tobytes()


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("end", [b"", b"\xff", b"\r\n", b"\0" * 50], ids=["none", "half", "newline", "zeros"])
@pytest.mark.parametrize("seed", range(5))
def test_a_jpeg_without_its_end_mark_is_read_where_every_pixel_is_there(options, end, seed):
    whole = jpeg(seed, **options)
    cut = whole.removesuffix(b"\xff\xd9") + end
    assert pixels(cut) == pixels(whole)
    form = Form(channels=3, image_size=8)
    assert form.row(cut, max_pixels=10_000) == form.row(whole, max_pixels=10_000)


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("missing", [6, 10, 20, 100, 600])
def test_a_jpeg_that_lacks_pixels_is_refused(options, seed, missing):
    with pytest.raises(ImageRejected, match="damaged or truncated"):
        pixels(jpeg(seed, **options)[:-missing])


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_progressive_jpeg_that_lacks_a_scan_is_refused(cut):
    whole = jpeg(progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    ends = [whole.rindex(b"\xff\xc4", 0, scan) for scan in scans[1:]] or [scans[-1]]
    with pytest.raises(ImageRejected):
        pixels(whole[: ends[cut % len(ends)]])


@pytest.mark.parametrize(
    "data",
    [
        with_text({"parameters": LONG}),
        with_text({"XML:com.adobe.xmp": LONG}, kind="add_itxt"),
        with_text({f"part {number}": LONG[:900_000] for number in range(80)}),
        png(icc_profile=bytes(3_000_000)),
    ],
    ids=["text", "xmp", "many texts", "profile"],
)
def test_metadata_of_any_size_do_not_hide_the_picture(data):
    assert pixels(data) == noise().tobytes()


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iCCP", b"gAMA", b"tIME", b"eXIf", b"prVt"])
def test_a_damaged_chunk_beside_the_pixels_does_not_hide_them(kind):
    whole = png()
    assert pixels(whole[:33] + chunk(kind, b"a\0\0b", checksum=1) + whole[33:]) == noise().tobytes()


@pytest.mark.parametrize("missing", [4, 12, 14, 16])
def test_a_png_may_lack_its_end_mark(missing):
    assert pixels(png()[:-missing]) == noise().tobytes()


@pytest.mark.parametrize("missing", [30, 100, 1000])
def test_a_png_that_lacks_pixels_is_refused(missing):
    with pytest.raises(ImageRejected):
        pixels(png()[:-missing])


def test_damaged_pixels_of_a_png_are_refused():
    data = bytearray(png())
    data[data.index(b"IDAT") + 500] ^= 1
    with pytest.raises(ImageRejected):
        pixels(bytes(data))


def test_jpegs_have_room_for_any_metadata():
    whole = jpeg()
    long = whole[:2] + (b"\xff\xe1\xff\xff" + b"x" * 65_533) * 100 + whole[2:]
    assert pixels(long) == pixels(whole)
    assert pixels(jpeg(icc_profile=bytes(3_000_000))) == pixels(whole)


def test_too_many_pixels_are_refused_whatever_else_is_wrong():
    for data in (jpeg()[:-2], with_text({"parameters": LONG})):
        with pytest.raises(ImageRejected):
            decode(data, channels=3, max_pixels=1000)
