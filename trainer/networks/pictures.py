"""From an image file to its pixels, the same in training, evaluation and serving.

Needs nothing but Pillow: processes that only decode start in a twentieth of a second, and would need seconds for torch.
"""

import io
import struct
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from trainer.networks.mending import mended

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MODES = {1: "L", 3: "RGB"}  # Pillow's names, by channels
SPARE = 2  # times the height and width needed are decoded, at least; Pillow's own thumbnails are made so
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


class ImageRejected(ValueError):
    """The bytes are no image this service reads; ``reason`` is for the person who sent them."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class Damaged(ImageRejected):
    """Something in the file is not as it should be, perhaps only around the pixels."""


def decode(data: bytes, *, channels: int, image_size: int | None = None, max_pixels: int = 50_000_000) -> Image.Image:
    """The upright picture in mode L (1 channel) or RGB (3 channels), transparency laid on white.

    ``image_size``: it is `resized` to that height and width. The decoder of a JPEG file then leaves out what only a
    picture more than twice as high and wide would need, and takes a fifth of the time (docs/decisions/0017).

    Reads JPEG, PNG, WebP, BMP and GIF. Raises ImageRejected for anything else, for animations, for damaged or
    truncated files, and, before any pixel is decoded, for more than ``max_pixels``. What is around the pixels may be
    damaged, as viewers have it (`trainer.networks.mending`).
    """
    if channels not in MODES:
        raise ValueError(f"images have 1 channel (grey) or 3 (colour), got {channels}")
    if not data:
        raise ImageRejected("the file is empty")
    try:
        return _read(data, channels, image_size, max_pixels)
    except Damaged:
        whole = mended(data, max_pixels=max_pixels)
        if whole is None or whole == data:
            raise
    return _read(whole, channels, image_size, max_pixels)


def _read(data: bytes, channels: int, image_size: int | None, max_pixels: int) -> Image.Image:
    """`decode` for a file without a fault; raises ImageRejected, which is Damaged where it may be mended."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse(image, max_pixels=max_pixels)
            box = None if image_size is None else _drafted(image, SPARE * image_size)
            image.load()
            picture = _in_mode(_on_white(image), MODES[channels])
            if image_size is not None:  # before it is turned, which a small square is sooner
                picture = resized(picture, image_size, box=box)
            return _upright(picture, _orientation(image))
    except (ImageRejected, MemoryError):  # what is too much for this process says nothing about the image
        raise
    except UnidentifiedImageError as error:
        raise Damaged("not a JPEG, PNG, WebP, BMP or GIF image") from error
    except Image.DecompressionBombError as error:
        raise ImageRejected(f"more than the {max_pixels:,} pixels allowed") from error
    except Exception as error:  # hostile bytes make Pillow's readers raise almost anything
        raise Damaged(f"damaged or truncated: {str(error) or type(error).__name__}") from error


def resized(image: Image.Image, image_size: int, *, box: Box | None = None) -> Image.Image:
    """Of that height and width; bilinear with antialiasing, exact where nothing is to be resized.

    ``box``: the part of the image that is the picture, by default all of it.
    """
    if image.size == (image_size, image_size):
        return image
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box)


@dataclass(frozen=True)
class Form:
    """What a model's images are brought to."""

    channels: int
    image_size: int

    @property
    def row_bytes(self) -> int:
        """Length of a packed image: height × width × channels, a byte each."""
        return self.image_size * self.image_size * self.channels

    def row(self, data: bytes, *, max_pixels: int) -> bytes:
        """A packed image from an image file; raises ImageRejected for what is none."""
        return decode(data, channels=self.channels, image_size=self.image_size, max_pixels=max_pixels).tobytes()


def _refuse(image: Image.Image, *, max_pixels: int) -> None:
    """Refuse by what the header says, before memory is spent."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageRejected(f"{width:,} × {height:,} pixels, more than the {max_pixels:,} allowed")
    # a JPEG of several pictures (MPO) is a photograph with previews beside it, and its first one counts
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageRejected(f"animated ({getattr(image, 'n_frames', 'several')} frames)")


def _drafted(image: Image.Image, least: int) -> Box | None:
    """Have a JPEG file decoded to a half, a quarter or an eighth that is at least so high and wide, if there is one.

    Returns where the picture then is: its last row and column may be there in part only. None: all will be decoded.
    """
    if min(image.size) < 2 * least:
        return None
    drafted = image.draft(None, (least, least))
    return drafted[1] if drafted else None


def _orientation(image: Image.Image) -> int | None:
    """Where EXIF says that its upper side is."""
    try:
        orientation: int | None = image.getexif().get(ORIENTATION_TAG)
    except (SyntaxError, ValueError, TypeError, KeyError, EOFError, OSError, struct.error):
        return None  # the picture itself is fine; viewers show it as it lies when only its EXIF block is damaged
    return orientation


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Pillow itself would copy what is in the mode already."""
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """8 bits a channel, without transparency."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow itself would clip it to 255
        return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
