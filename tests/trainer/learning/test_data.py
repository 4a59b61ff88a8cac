"""Sets of images: how they are joined, chosen from, counted and described."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.patterns import SIZE
from trainer.learning.data import ImageSet, channel_statistics, positions_by_class


@pytest.fixture(scope="module")
def stored() -> list[str]:
    """Names of thirty images of three classes, mixed."""
    return [f"image {number}" for number in range(30)]


def loaded(stored: list[str]) -> ImageSet:
    """A set of images of noise by their names, in a pool of its own."""
    numbers = [int(name.split()[1]) for name in stored]
    pixels = [torch.randint(256, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(n)) for n in numbers]
    return ImageSet(torch.stack(pixels).byte(), torch.tensor([n % 3 for n in numbers]), tuple(stored))


def test_two_sets_together_are_the_first_and_then_the_second(stored):
    whole, first, second = (loaded(part) for part in (stored, stored[:12], stored[12:]))
    both = first + second
    assert torch.equal(both.pixels, whole.pixels)
    assert torch.equal(both.targets, whole.targets)
    assert both.ids == whole.ids
    assert (len(first), len(second)) == (12, 18)


@pytest.mark.parametrize("positions", [[4, 0, 29, 4], [], list(range(30))], ids=["some", "none", "all"])
def test_selected_images_are_those_at_the_positions_in_their_order(stored, positions):
    whole = loaded(stored)
    found = whole.select(torch.tensor(positions, dtype=torch.int64))
    assert found.ids == tuple(stored[position] for position in positions)
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
