"""From bytes to network input: what is read, how it is turned, and what is refused with which words."""

import io
import struct
import zlib

import pytest
import torch
from PIL import Image

from trainer.networks import EvaluationTransform, ImageRejected, decode, pixels

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def two_halves(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    values = torch.randint(0, 256, (size[0] * size[1] * 3,), generator=torch.Generator().manual_seed(seed))
    return Image.frombytes("RGB", size, bytes(values.tolist()))


def colour(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_each_format_is_read_in_colour_and_in_grey(kind):
    data = encoded(two_halves(), kind)
    colourful, grey = decode(data, channels=3), decode(data, channels=1)
    assert (colourful.mode, colourful.size) == ("RGB", (32, 16))
    assert colour(colourful, 4, 8) == pytest.approx(RED, abs=6)
    assert colour(colourful, 28, 8) == pytest.approx(BLUE, abs=6)
    assert grey.mode == "L"
    assert grey.getpixel((4, 8)) == pytest.approx(0.299 * 255, abs=6)  # ITU-R BT.601 luma of red


def test_lossless_formats_keep_every_pixel():
    image = noise((9, 7))
    for kind in ("PNG", "BMP"):
        assert decode(encoded(image, kind), channels=3).tobytes() == image.tobytes()


# Where the top left corner of the upright picture lies in the file, by EXIF orientation (EXIF 2.32, Figure 25):
# (row 0 is at the, column 0 is at the) visual side.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def stored_as(upright: Image.Image, orientation: int) -> Image.Image:
    """The rows and columns a camera writes for a picture that is to be seen as ``upright``, straight from the table."""
    row_side, column_side = SIDES[orientation]
    turned = row_side in {"left", "right"}
    width, height = upright.size
    stored = Image.new("RGB", (height, width) if turned else (width, height))
    for row in range(stored.height):
        for column in range(stored.width):
            along_y, along_x = (column, row) if turned else (row, column)
            from_bottom = "bottom" in {row_side, column_side}
            from_right = "right" in {row_side, column_side}
            y = height - 1 - along_y if from_bottom else along_y
            x = width - 1 - along_x if from_right else along_x
            stored.putpixel((column, row), colour(upright, x, y))
    return stored


@pytest.mark.parametrize("orientation", sorted(SIDES))
def test_photographs_are_turned_upright(orientation):
    upright = noise((5, 3))
    data = encoded(stored_as(upright, orientation), "PNG", exif=exif(orientation))
    assert decode(data, channels=3).tobytes() == upright.tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_damaged_exif_block_leaves_the_picture_as_it_lies():
    image = two_halves()
    for block in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert decode(encoded(image, "JPEG", exif=block), channels=3).size == image.size


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))  # black, but nothing of it is seen
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))  # a fifth of black on white: 204
    for kind in ("PNG", "WEBP"):
        found = decode(
            encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), channels=3
        )
        assert [colour(found, x, 0) for x in range(3)] == [WHITE, RED, (204, 204, 204)]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    found = decode(encoded(image, kind, transparency=0), channels=3)
    assert [colour(found, x, 0) for x in range(2)] == [WHITE, GREEN]


def test_a_transparent_grey_level_is_white():
    image = Image.new("L", (2, 1), 0)
    image.putpixel((1, 0), 100)
    found = decode(encoded(image, "PNG", transparency=0), channels=1)
    assert [found.getpixel((x, 0)) for x in range(2)] == [255, 100]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_with_alpha_is_laid_on_white(channels):
    found = decode(encoded(Image.new("LA", (1, 1), (0, 51)), "PNG"), channels=channels)
    assert found.tobytes() == bytes([204] * channels)


def test_palettes_and_single_bits_are_read():
    assert decode(encoded(two_halves().quantize(2), "PNG"), channels=3).getpixel((31, 0)) == BLUE
    assert decode(encoded(Image.new("1", (3, 2), 1), "PNG"), channels=1).tobytes() == b"\xff" * 6


def test_cmyk_photographs_have_the_right_colours():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink: red
    assert colour(decode(encoded(image, "JPEG", quality=95), channels=3), 8, 8) == pytest.approx(RED, abs=6)


def png_of(width: int, height: int, *, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG written by hand (RFC 2083)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_grey_is_scaled_not_clipped():
    levels = (0, 257, 1000, 32768, 65535)
    data = png_of(5, 1, depth=16, colour_type=0, rows=b"\0" + struct.pack(">5H", *levels))
    expected = [round(level / 257) for level in levels]
    assert list(decode(data, channels=1).tobytes()) == expected
    assert list(decode(data, channels=3).tobytes()) == [value for value in expected for _ in range(3)]


def test_16_bit_colour_is_scaled():
    data = png_of(1, 1, depth=16, colour_type=2, rows=b"\0" + struct.pack(">3H", 65535, 32768, 0))
    assert list(decode(data, channels=3).tobytes()) == pytest.approx([255, 128, 0], abs=1)


def test_one_pixel_is_an_image():
    assert pixels(decode(encoded(Image.new("RGB", (1, 1), RED), "PNG"), channels=3), 8).float().mean(
        (1, 2)
    ).tolist() == [
        255,
        0,
        0,
    ]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused(kind):
    frames = [noise((16, 16), seed) for seed in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    with pytest.raises(ImageRejected, match=r"^animated \(3 frames\)$"):
        decode(data, channels=3)


def test_a_photograph_with_a_preview_beside_it_is_no_animation():
    data = encoded(two_halves(), "MPO", save_all=True, append_images=[two_halves((16, 8))])
    assert decode(data, channels=3).size == (32, 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_truncated_files_are_refused(share, kind):
    data = encoded(noise((64, 64)), kind)
    with pytest.raises(ImageRejected, match=r"damaged or truncated|not a JPEG"):
        decode(data[: int(len(data) * share)], channels=3)


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize(
    "data",
    [
        encoded(two_halves(), "TIFF"),
        encoded(two_halves(), "PDF"),
        encoded(two_halves(), "EPS"),
        encoded(two_halves(), "ICO"),
        encoded(two_halves(), "PPM"),
        SVG,
        b"PK\x03\x04" + bytes(100),
        b"\0",
        b"not an image" * 50,
    ],
    ids=["tiff", "pdf", "eps", "ico", "ppm", "svg", "zip", "nul", "text"],
)
def test_other_formats_are_refused_whatever_they_are_called(data):
    with pytest.raises(ImageRejected, match=r"^not a JPEG, PNG, WebP, BMP or GIF image$"):
        decode(data, channels=3)


def test_nothing_is_refused_as_empty():
    with pytest.raises(ImageRejected, match=r"^the file is empty$"):
        decode(b"", channels=3)


def test_a_pixel_bomb_is_refused_before_its_pixels_are_decoded():
    # The header promises 30,000 × 30,000 pixels and there is not one of them: decoding would call the file damaged.
    for size, message in ((30_000, "more than the 50,000,000 pixels"), (9_000, "9,000 × 9,000 pixels, more than")):
        data = png_of(size, size, depth=8, colour_type=2, rows=b"")
        with pytest.raises(ImageRejected, match=message):
            decode(data, channels=3)


def test_the_pixel_limit_is_the_callers():
    data = encoded(two_halves((10, 10)), "PNG")
    assert decode(data, channels=3, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageRejected, match=r"10 × 10 pixels, more than the 99 allowed"):
        decode(data, channels=3, max_pixels=99)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_noise_never_raises_anything_but_a_refusal():
    # Every byte of small files of each format overwritten once: either a picture or ImageRejected.
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        data = encoded(noise((8, 8)), kind)
        for position in range(len(data)):
            broken = bytearray(data)
            broken[position] ^= 0xFF
            try:
                found = decode(bytes(broken), channels=3, max_pixels=10_000)
            except ImageRejected:
                continue
            assert found.mode == "RGB"


def test_other_channel_counts_are_a_mistake_of_the_program():
    with pytest.raises(ValueError, match="got 4"):
        decode(encoded(two_halves(), "PNG"), channels=4)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_the_right_size_are_untouched(channels):
    image = noise((8, 8)).convert("L" if channels == 1 else "RGB")
    found = pixels(image, 8)
    assert (found.dtype, found.shape, found.is_contiguous()) == (torch.uint8, (channels, 8, 8), True)
    for x, y in ((0, 0), (7, 0), (2, 5)):
        value = image.getpixel((x, y))
        assert tuple(found[:, y, x].tolist()) == (value if isinstance(value, tuple) else (value,))


def test_shrinking_averages_over_all_pixels():
    # A chequerboard of single pixels: without antialiasing one would get black or white instead of grey.
    board = Image.new("L", (64, 64))
    board.putdata([255 * ((x + y) % 2) for y in range(64) for x in range(64)])
    assert pixels(board, 8).float().sub(127.5).abs().max() < 6


def landscape(width: int, height: int) -> Image.Image:
    """As smooth as photographs are: most of it in waves of many pixels, a little of each pixel's own."""
    ys, xs = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    generator = torch.Generator().manual_seed(4)
    waves = [120 + 60 * torch.sin(6 * (k + 1) * xs + k) + 50 * torch.cos((7 - 2 * k) * ys * 3 + xs) for k in range(3)]
    values = torch.stack(waves, dim=2) + 8 * torch.randn(height, width, 3, generator=generator)
    return Image.frombytes("RGB", (width, height), values.clamp(0, 255).byte().numpy().tobytes())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 501), (1023, 517)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_jpeg_is_decoded_in_part_and_looks_the_same(channels, width, height, orientation):
    data = encoded(landscape(width, height), "JPEG", quality=92, exif=exif(orientation))
    found = pixels(decode(data, channels=channels, image_size=40), 40).float()
    whole = pixels(decode(data, channels=channels), 40).float()
    assert found.shape == (channels, 40, 40)
    assert (found - whole).square().mean().sqrt() < 1  # of 255
    assert (found - whole).abs().max() < 8  # at the edges as well, where the last pixels are there in part


def test_what_a_large_jpeg_leaves_out_is_not_decoded(monkeypatch):
    """Seen in what is resized: at least twice, and less than four times the size asked for."""
    sizes = []
    resize = Image.Image.resize

    def watched(image, *args, **options):
        sizes.append(image.size)
        return resize(image, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    for width, height in ((500, 375), (81, 80), (79, 300), (4000, 320)):
        decode(encoded(landscape(width, height), "JPEG"), channels=3, image_size=20)
    assert sizes == [(63, 47), (41, 40), (79, 300), (500, 40)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "JPEG"])
def test_other_formats_and_small_pictures_are_decoded_in_full(kind):
    data = encoded(noise((39, 200)) if kind == "JPEG" else noise((90, 77)), kind)
    whole = pixels(decode(data, channels=3), 20)
    assert torch.equal(pixels(decode(data, channels=3, image_size=20), 20), whole)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_large_jpeg_that_breaks_off_is_refused_though_less_of_it_is_decoded(share, progressive):
    data = encoded(landscape(500, 375), "JPEG", progressive=progressive)
    with pytest.raises(ImageRejected, match="truncated"):
        decode(data[: int(len(data) * share)], channels=3, image_size=20)


def test_a_picture_is_turned_as_well_after_it_was_resized():
    picture = landscape(90, 61)
    for orientation in range(1, 9):
        data = encoded(picture, "PNG", exif=exif(orientation))
        found = pixels(decode(data, channels=3, image_size=20), 20).int()
        assert (found - pixels(decode(data, channels=3), 20).int()).abs().max() <= 1  # both ways round to bytes


def test_any_shape_becomes_square():
    assert pixels(two_halves((100, 20)), 16).shape == (3, 16, 16)
    assert pixels(two_halves((100, 20)), 16)[0, 0].tolist()[:6] == [255] * 6


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation():
    transform = EvaluationTransform(image_size=1, channels=2 + 1, mean=(0.0, 0.5, 0.2), std=(1.0, 0.5, 0.1))
    found = transform.normalise(torch.tensor([255, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1))
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(1, 3, 4, 4).double(), torch.zeros(3, 4, 4).byte(), torch.zeros(1, 1, 4, 4).byte()],
    ids=["double", "3d", "grey"],
)
def test_normalising_wants_minibatches_of_bytes_or_of_their_shares(wrong):
    transform = EvaluationTransform(image_size=4, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(ValueError, match=r"expected uint8 or float32 pixels \[batch, 3, h, w\], got"):
        transform.normalise(wrong)


def test_bytes_and_their_shares_are_the_same_to_a_network():
    transform = EvaluationTransform(image_size=4, channels=3, mean=(0.1, 0.5, 0.2), std=(1.0, 0.5, 0.1))
    pixels = torch.arange(96, dtype=torch.uint8).view(2, 3, 4, 4)
    assert torch.equal(transform.normalise(pixels), transform.normalise(pixels.float() / 255))


def test_the_record_brings_the_transform_back():
    transform = EvaluationTransform(image_size=28, channels=1, mean=(0.1307,), std=(0.3081,))
    assert EvaluationTransform.from_json(transform.to_json()) == transform
    with pytest.raises(ValueError, match="resizing is 'bilinear', got 'bicubic'"):
        EvaluationTransform.from_json(transform.to_json() | {"resize": "bicubic"})


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (1.0, 1.0)), ((0.0, 0.0), (1.0, 0.0)), ((0.0, 0.0, 0.0), (1.0, 1.0))]
)
def test_statistics_that_cannot_be_are_refused(mean, std):
    with pytest.raises(ValueError, match=r"means and deviations|positive"):
        EvaluationTransform(image_size=8, channels=2, mean=mean, std=std)
