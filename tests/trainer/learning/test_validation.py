"""The validation part: what decides an image's side, and what no class loses."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.learning.data import ImageSet
from trainer.learning.validation import split_by_hash


def noise(count: int, *, classes: int = 5, seed: int = 0) -> ImageSet:
    pixels = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    names = tuple(f"image {number}" for number in range(count))
    return ImageSet(pixels.to(torch.uint8), torch.arange(count) % classes, names)


def grey(levels: list[int], targets: list[int]) -> ImageSet:
    """Images of a single pixel: equal levels are equal images."""
    pixels = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return ImageSet(pixels, torch.tensor(targets, dtype=torch.int64), tuple(map(str, range(len(levels)))))


def same(one: ImageSet, other: ImageSet) -> bool:
    return one.ids == other.ids and torch.equal(one.pixels, other.pixels) and torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_about_the_share_validates_of_every_class(share):
    _, validation = split_by_hash(noise(5000), share=share)
    deviation = (1000 * share * (1 - share)) ** 0.5
    for count in validation.targets.bincount(minlength=5).tolist():
        assert abs(count - 1000 * share) < 5 * deviation


def test_both_parts_together_are_all_images_in_their_order():
    images = noise(300)
    parts = split_by_hash(images, share=0.3)
    places = [[images.ids.index(name) for name in part.ids] for part in parts]
    assert sorted(places[0] + places[1]) == list(range(300))
    for part, place in zip(parts, places, strict=True):
        assert place == sorted(place)
        assert same(part, images.select(torch.tensor(place)))


def test_pixels_alone_decide():
    images = noise(400)
    _, validation = split_by_hash(images, share=0.2)
    backwards = torch.arange(399, -1, -1)
    other = ImageSet(images.pixels[backwards], (images.targets[backwards] + 1) % 5, tuple(map(str, range(400))))
    _, again = split_by_hash(other, share=0.2)
    assert torch.equal(again.pixels, validation.pixels.flip(0))


def test_an_image_stays_on_its_side_as_others_come_and_go():
    images = noise(400)
    _, validation = split_by_hash(images, share=0.2)
    half = images.select(torch.arange(0, 400, 2))
    _, of_half = split_by_hash(half, share=0.2)
    assert set(of_half.ids) == set(validation.ids) & set(half.ids)


def test_a_larger_share_takes_more_of_the_same():
    images = noise(400)
    validations = [set(split_by_hash(images, share=share)[1].ids) for share in (0.1, 0.2, 0.4)]
    assert all(less < more for less, more in itertools.pairwise(validations))


def test_the_sides_are_the_same_on_every_machine_and_in_every_release():
    # Another hash would move exemplars from one side to the other between two increments.
    levels = [level for level in range(256) if level % 16 == 0]
    _, validation = split_by_hash(grey(levels, [0] * 16), share=0.25)
    assert validation.pixels.flatten().tolist() == [16, 32, 96, 112, 192, 208, 224]


def test_memory_layout_does_not_count():
    images = noise(200)
    strided = ImageSet(images.pixels.to(memory_format=torch.channels_last), images.targets, images.ids)
    assert split_by_hash(strided, share=0.2)[1].ids == split_by_hash(images, share=0.2)[1].ids


palette = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=12)


@given(drawn=palette, share=st.sampled_from([0.01, 0.3, 0.6, 0.99]))
def test_no_class_loses_all_and_equal_images_stay_together_and_something_validates_where_it_can(drawn, share):
    levels, targets = [level for level, _ in drawn], [target for _, target in drawn]
    training, validation = split_by_hash(grey(levels, targets), share=share)
    assert set(training.targets.tolist()) == set(targets)
    assert not set(training.pixels.flatten().tolist()) & set(validation.pixels.flatten().tolist())
    assert len(training) + len(validation) == len(drawn)
    can_be_spared = any(
        {target for level_, target in drawn if level_ != level} == set(targets) for level in set(levels)
    )
    assert bool(validation) is can_be_spared


def test_of_a_class_that_lies_under_the_share_the_image_of_the_largest_hash_is_trained_on():
    images = noise(40, classes=1)
    places = {name: place for place, name in enumerate(images.ids)}
    by_hash: list[int] = []  # as growing shares reveal it
    for share in (step / 500 for step in range(1, 500)):
        by_hash += [places[name] for name in split_by_hash(images, share=share)[1].ids if places[name] not in by_hash]
    few = images.select(torch.tensor(by_hash[:3]))
    training, validation = split_by_hash(few, share=0.999)
    assert training.ids == (images.ids[by_hash[2]],)
    assert len(validation) == 2
    # And where none lies under it, the one of the smallest is held back.
    last = images.select(torch.tensor(by_hash[:-4:-1]))
    _, validation = split_by_hash(last, share=1e-9)
    assert validation.ids == (last.ids[2],)


def test_a_class_of_one_image_keeps_it_also_from_others_that_have_it_too():
    for share in (0.01, 0.99):
        training, validation = split_by_hash(grey([7, 7, 9, 7], [0, 1, 1, 0]), share=share)
        assert training.ids == ("0", "1", "3")
        assert validation.ids == ("2",)


def test_where_every_class_has_one_image_there_is_nothing_to_validate_on():
    training, validation = split_by_hash(grey([1, 2, 3, 3], [0, 1, 2, 2]), share=0.5)
    assert len(training) == 4
    assert not validation
    assert validation.pixels.shape == (0, 1, 1, 1)
