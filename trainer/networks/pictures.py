"""From an image file to its pixels, the same in training, evaluation and serving.

Imports only Pillow: processes that only decode start in 0.05 s, and importing torch would take seconds.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from trainer.networks.mending import mended

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MODES = {1: "L", 3: "RGB"}  # Pillow's names, by channels
SPARE = 2  # JPEG files are decoded to at least this multiple of the size needed, as for Pillow's thumbnails
ORIENTATION_TAG = 0x0112  # EXIF 2.32 §4.6.4
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Box = tuple[float, float, float, float]  # left, upper, right, lower; in pixels
Fit = Callable[[Image.Image, Box | None], Image.Image]  # of a decoded image, of which the box is the picture


class ImageRejected(ValueError):
    """The bytes are not an image that this service reads; ``reason`` is written for the sender."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class Damaged(ImageRejected):
    """The file has a fault, perhaps only outside the pixel data."""


def decode(data: bytes, *, channels: int, image_size: int | None = None, max_pixels: int = 50_000_000) -> Image.Image:
    """The upright picture in mode L (1 channel) or RGB (3 channels), transparency laid on white.

    With ``image_size``, the picture is `resized` to that height and width. A large JPEG file is then decoded at a
    reduced size, at least twice the size needed, which takes a fifth of the time (docs/decisions/0017).

    Reads JPEG, PNG, WebP, BMP and GIF. Raises ImageRejected for any other format, for animations, for damaged or
    truncated files, and for more than ``max_pixels`` pixels; the last before any pixel is decoded. Damage outside the
    pixel data is accepted, as in image viewers (`trainer.networks.mending`).
    """
    if channels not in MODES:
        raise ValueError(f"images have 1 channel (grey) or 3 (colour), got {channels}")

    def fit(image: Image.Image, box: Box | None) -> Image.Image:
        return image if image_size is None else resized(image, image_size, box=box)

    return _decoded(data, channels, image_size, fit, max_pixels)


def thumbnail(data: bytes, *, side: int, max_pixels: int = 50_000_000) -> Image.Image:
    """The upright picture in mode RGB, at most ``side`` pixels high and wide, never enlarged; for people.

    Reads and refuses what `decode` does.
    """

    def fit(image: Image.Image, box: Box | None) -> Image.Image:
        width, height = image.size if box is None else (round(box[2] - box[0]), round(box[3] - box[1]))
        scale = min(1.0, side / max(width, height))
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
        return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS, box)

    return _decoded(data, 3, side, fit, max_pixels)


def _decoded(data: bytes, channels: int, least: int | None, fit: Fit, max_pixels: int) -> Image.Image:
    """The picture, made fit; its file is repaired first, where that helps."""
    if not data:
        raise ImageRejected("the file is empty")
    try:
        return _read(data, channels, least, fit, max_pixels)
    except Damaged:
        whole = mended(data, max_pixels=max_pixels)
        if whole is None or whole == data:
            raise
    return _read(whole, channels, least, fit, max_pixels)


def _read(data: bytes, channels: int, least: int | None, fit: Fit, max_pixels: int) -> Image.Image:
    """`_decoded` without mending; raises ImageRejected, or its subclass Damaged if `mended` may repair the file."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse(image, max_pixels=max_pixels)
            box = None if least is None else _drafted(image, SPARE * least)
            image.load()
            # Before the rotation, which is faster on a small picture.
            picture = fit(_in_mode(_on_white(image), MODES[channels]), box)
            return _upright(picture, _orientation(image))
    except (ImageRejected, MemoryError):  # a lack of memory here says nothing about the image
        raise
    except UnidentifiedImageError as error:
        raise Damaged("not a JPEG, PNG, WebP, BMP or GIF image") from error
    except Image.DecompressionBombError as error:
        raise ImageRejected(f"more than the {max_pixels:,} pixels allowed") from error
    except Exception as error:  # hostile bytes make Pillow's readers raise almost anything
        raise Damaged(f"damaged or truncated: {str(error) or type(error).__name__}") from error


def resized(image: Image.Image, image_size: int, *, box: Box | None = None) -> Image.Image:
    """The image at ``image_size`` × ``image_size``, bilinear with antialiasing; unchanged if it has that size already.

    ``box`` is the part of the image that is the picture, by default all of it.
    """
    if image.size == (image_size, image_size):
        return image
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box)


@dataclass(frozen=True)
class Form:
    """The form in which a model takes images; ``image_size`` is the height and the width, in pixels."""

    channels: int
    image_size: int

    @property
    def row_bytes(self) -> int:
        """Length of a packed image in bytes: height × width × channels."""
        return self.image_size * self.image_size * self.channels

    def row(self, data: bytes, *, max_pixels: int) -> bytes:
        """A packed image from an image file; raises ImageRejected as `decode` does."""
        return decode(data, channels=self.channels, image_size=self.image_size, max_pixels=max_pixels).tobytes()


def _refuse(image: Image.Image, *, max_pixels: int) -> None:
    """Raise ImageRejected by the header alone, before memory is allocated for pixels."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageRejected(f"{width:,} × {height:,} pixels, more than the {max_pixels:,} allowed")
    # a JPEG file of several pictures (MPO) is a photograph with previews; its first picture is the photograph
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageRejected(f"animated ({getattr(image, 'n_frames', 'several')} frames)")


def _drafted(image: Image.Image, least: int) -> Box | None:
    """Have a JPEG file decoded at 1/2, 1/4 or 1/8 of its size, if that is at least ``least`` pixels high and wide.

    Returns the box of the picture in the decoded image, whose last row and column may be partial. None: the file will
    be decoded at full size.
    """
    if min(image.size) < 2 * least:
        return None
    drafted = image.draft(None, (least, least))
    return drafted[1] if drafted else None


def _orientation(image: Image.Image) -> int | None:
    """The orientation by EXIF; None if there is none or it cannot be read."""
    try:
        orientation: int | None = image.getexif().get(ORIENTATION_TAG)
    except (SyntaxError, ValueError, TypeError, KeyError, EOFError, OSError, struct.error):
        return None  # only the EXIF block is damaged: viewers then show the picture without rotation
    return orientation


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in ``mode``; not copied, as Pillow's `convert` would, if it has that mode already."""
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """The image without transparency, laid on white; 16-bit grey is reduced to 8 bits."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow itself would clip it to 255
        return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
