"""Images in memory: pixels against Pillow and numpy, targets, order."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor

from storage.blobs import DirectoryBlobs
from storage.domain import Image, new_id
from storage.errors import BlobMissing
from tests.patterns import SIZE, picture
from trainer.data import ImageSet, channel_statistics, load, positions_by_class
from trainer.networks import ImageRejected

LABELS = ("basil", "chive", "dill")
CLASSES = {"anise": 0, "dill": 1, "basil": 2, "chive": 3}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> DirectoryBlobs:
    return DirectoryBlobs(Path(tmp_path_factory.mktemp("blobs")))


@pytest.fixture(scope="module")
def stored(blobs: DirectoryBlobs) -> list[Image]:
    """Thirty images of three classes, mixed."""
    return [put(blobs, picture(LABELS[number % 3], number), LABELS[number % 3]) for number in range(30)]


def put(blobs: DirectoryBlobs, data: bytes, label: str = "basil") -> Image:
    digest = blobs.put(data)
    return Image(id=new_id(), batch_id="b", label=label, filename="x.png", digest=digest, size=len(data), split=None)


def loaded(stored, blobs, *, channels=3, size=SIZE, threads=2, max_pixels=1_000_000, **more) -> ImageSet:
    return load(
        stored,
        read=blobs.get,
        classes=CLASSES,
        image_size=size,
        channels=channels,
        max_pixels=max_pixels,
        threads=threads,
        **more,
    )


@pytest.mark.parametrize("size", [SIZE, 8, 21], ids=["as they are", "smaller", "larger"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")], ids=["grey", "colour"])
def test_pixels_are_those_of_the_picture(stored, blobs, channels, mode, size):
    found = loaded(stored, blobs, channels=channels, size=size)
    assert found.pixels.dtype == torch.uint8
    assert found.pixels.shape == (30, channels, size, size)
    for image, pixels in zip(stored, found.pixels, strict=True):
        with Picture.open(io.BytesIO(blobs.get(image.digest))) as opened:
            expected = opened.convert(mode)
            if size != SIZE:
                expected = expected.resize((size, size), Picture.Resampling.BILINEAR)
        rows = np.asarray(expected).reshape(size, size, channels)
        assert np.array_equal(pixels.numpy(), rows.transpose(2, 0, 1))


def test_targets_are_positions_among_the_classes_and_ids_those_of_the_images(stored, blobs):
    found = loaded(stored, blobs)
    assert found.targets.dtype == torch.int64
    assert found.targets.tolist() == [2, 3, 1] * 10
    assert found.ids == tuple(image.id for image in stored)
    assert len(found) == 30


@pytest.mark.parametrize("threads", [2, 8])
def test_the_number_of_threads_changes_nothing(stored, blobs, threads):
    one, several = loaded(stored, blobs, threads=1), loaded(stored, blobs, threads=threads)
    assert torch.equal(one.pixels, several.pixels)
    assert torch.equal(one.targets, several.targets)
    assert one.ids == several.ids


def test_the_order_is_the_given_one(stored, blobs):
    straight, reverse = loaded(stored, blobs), loaded(stored[::-1], blobs)
    assert torch.equal(straight.pixels, reverse.pixels.flip(0))
    assert torch.equal(straight.targets, reverse.targets.flip(0))
    assert straight.ids == reverse.ids[::-1]


def test_every_image_is_counted_as_it_is_done(stored, blobs):
    counted: list[int] = []
    loaded(stored, blobs, advanced=counted.append)
    assert counted == list(range(1, 31))


def test_a_batch_of_no_images_is_an_empty_set(blobs):
    found = loaded([], blobs)
    assert len(found) == 0
    assert found.pixels.shape == (0, 3, SIZE, SIZE)


def test_the_limit_of_pixels_is_the_one_that_is_given(stored, blobs):
    assert len(loaded(stored, blobs, max_pixels=SIZE * SIZE)) == 30
    with pytest.raises(ImageRejected, match="pixels"):
        loaded(stored, blobs, max_pixels=SIZE * SIZE - 1)


def test_an_image_that_is_gone_is_not_passed_over(stored, blobs):
    gone = put(blobs, picture("dill", 500), "dill")
    blobs.delete(gone.digest)
    with pytest.raises(BlobMissing):
        loaded([*stored, gone], blobs)


def test_two_sets_together_are_the_first_and_then_the_second(stored, blobs):
    whole, first, second = (loaded(part, blobs) for part in (stored, stored[:12], stored[12:]))
    both = first + second
    assert torch.equal(both.pixels, whole.pixels)
    assert torch.equal(both.targets, whole.targets)
    assert both.ids == whole.ids
    assert (len(first), len(second)) == (12, 18)


@pytest.mark.parametrize("positions", [[4, 0, 29, 4], [], list(range(30))], ids=["some", "none", "all"])
def test_selected_images_are_those_at_the_positions_in_their_order(stored, blobs, positions):
    whole = loaded(stored, blobs)
    found = whole.select(torch.tensor(positions, dtype=torch.int64))
    assert found.ids == tuple(stored[position].id for position in positions)
    assert found.pixels.shape == (len(positions), 3, SIZE, SIZE)
    for image, position in enumerate(positions):
        assert torch.equal(found.pixels[image], whole.pixels[position])
        assert found.targets[image] == whole.targets[position]


def pooled(pixels: Tensor) -> ImageSet:
    """A set of all these pixels."""
    return ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.int64), tuple(map(str, range(len(pixels)))))


def test_what_is_taken_out_of_a_set_are_copies():
    whole = pooled(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    chosen = whole.select(torch.tensor([1, 2]))
    for copy in (chosen.pixels, whole.pixels, *chosen.minibatches(1)):
        copy.fill_(9)
    assert not whole.pool.any()


def test_choosing_and_joining_within_a_pool_moves_no_pixels():
    whole = pooled(torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1))
    odd, even = whole.select(torch.arange(1, 10, 2)), whole.select(torch.arange(0, 10, 2))
    both = odd.select(torch.tensor([4, 0])) + even
    assert both.pool is whole.pool
    assert both.pixels.flatten().tolist() == [9, 1, 0, 2, 4, 6, 8]
    assert both.ids == tuple("9102468")
    assert torch.cat([*both.minibatches(3)]).equal(both.pixels)
    assert [len(part) for part in both.minibatches(3)] == [3, 3, 1]


def test_a_set_whose_parts_do_not_match_is_refused():
    with pytest.raises(ValueError, match="2 images, 3 targets, 3 ids"):
        ImageSet(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ("a", "b", "c"))


@pytest.mark.parametrize(
    "targets", [[], [2], [3, 1, 3, 0, 1, 3], [7, 2, 2] * 3000], ids=["none", "one", "some", "many"]
)
def test_the_positions_of_a_class_rise_and_so_do_the_classes(targets):
    found = positions_by_class(torch.tensor(targets, dtype=torch.int64))
    assert [*found] == sorted(set(targets))
    for target, positions in found.items():
        assert positions.tolist() == [position for position, of in enumerate(targets) if of == target]


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_statistics_are_numpys(channels):
    generator = np.random.default_rng(5)
    levels = generator.integers(0, 256, (50, channels, 9, 9)) // np.arange(1, channels + 1).reshape(1, -1, 1, 1)
    means, deviations = channel_statistics(pooled(torch.from_numpy(levels.astype(np.uint8))))
    assert means == pytest.approx((levels / 255).mean(axis=(0, 2, 3)), abs=1e-6)
    assert deviations == pytest.approx((levels / 255).std(axis=(0, 2, 3)), abs=1e-6)


def test_statistics_of_black_and_white_are_exact():
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    pixels[0] = 255
    assert channel_statistics(pooled(pixels)) == ((0.5,), (0.5,))


def test_a_flat_channel_deviates_by_one_grey_level_so_that_nothing_is_divided_by_zero():
    pixels = torch.full((3, 3, 4, 4), 51, dtype=torch.uint8)
    means, deviations = channel_statistics(pooled(pixels))
    assert means == (0.2, 0.2, 0.2)
    assert deviations == pytest.approx((1 / 255,) * 3, abs=1e-6)
