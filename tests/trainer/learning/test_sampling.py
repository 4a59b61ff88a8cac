"""The order of an epoch: how often every image and class comes, and that chance is the generator's alone."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.learning.sampling import epoch_order, settled


def order(sampling, targets: list[int], seed: int = 0) -> Tensor:
    return epoch_order(sampling, torch.tensor(targets), generator=torch.Generator().manual_seed(seed))


some_targets = st.lists(st.sampled_from([0, 1, 2, 5, 40]), min_size=1, max_size=60)


def test_auto_balances_classes_where_old_images_are_shown_and_what_is_asked_for_stays():
    assert settled("auto", rehearses=True) == "class-balanced"
    assert settled("auto", rehearses=False) == "uniform"
    for asked in ("uniform", "class-balanced"):
        assert {settled(asked, rehearses=rehearses) for rehearses in (True, False)} == {asked}


either = pytest.mark.parametrize("sampling", ["uniform", "class-balanced"])


@given(targets=some_targets, seed=st.integers(0, 2**32 - 1))
def test_uniform_shows_every_image_once(targets, seed):
    assert sorted(order("uniform", targets, seed).tolist()) == list(range(len(targets)))


@given(targets=some_targets, seed=st.integers(0, 2**32 - 1))
def test_balanced_shows_classes_equally_often_and_no_image_again_before_all_of_its_class(targets, seed):
    found = order("class-balanced", targets, seed)
    assert found.dtype == torch.int64
    assert len(found) == len(targets)
    classes = Counter(targets[position] for position in found.tolist())
    assert classes.keys() == set(targets)
    assert max(classes.values()) - min(classes.values()) <= 1
    shown = Counter(found.tolist())
    for target in classes:
        times = [shown[position] for position, of in enumerate(targets) if of == target]
        assert max(times) - min(times) <= 1


def test_with_equal_classes_balanced_shows_every_image_once():
    assert sorted(order("class-balanced", [0, 1, 2] * 10).tolist()) == list(range(30))


@either
def test_the_generator_decides_and_goes_on_from_epoch_to_epoch(sampling):
    targets = torch.tensor([0] * 30 + [1] * 5)

    def epochs(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [epoch_order(sampling, targets, generator=generator).tolist() for _ in range(3)]

    before = torch.get_rng_state()
    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)
    assert len({tuple(epoch) for epoch in epochs(1)}) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_in_balance_every_place_is_any_class_s_and_every_image_of_it_is_as_likely():
    targets = torch.tensor([0] * 12 + [1] * 4 + [2])
    generator = torch.Generator().manual_seed(0)
    epochs = torch.stack([epoch_order("class-balanced", targets, generator=generator) for _ in range(3000)])
    for place in (0, 8, 16):
        counts = targets[epochs[:, place]].bincount(minlength=3)
        # A third of 3000 each, with a standard deviation of 26.
        assert all(abs(count - 1000) < 5 * 26 for count in counts.tolist())
    # Of 17 places a class has 5⅔ in the mean, 17 000 of 3000 epochs'; shared by its images.
    shown = epochs.flatten().bincount(minlength=17)
    for target, images in ((0, 12), (1, 4), (2, 1)):
        for count in shown[targets == target].tolist():
            assert count == pytest.approx(17_000 / images, rel=0.1)


def test_a_few_exemplars_among_many_new_images_come_as_often_as_these():
    targets = [0] * 20 + [1] * 980
    shown = torch.tensor(targets)[order("class-balanced", targets)]
    assert shown.bincount().tolist() == [500, 500]
    # Mixed throughout: any fifty in a row are about half and half (25, with a standard deviation of 3.5).
    assert all(5 < int(part.sum()) < 45 for part in shown.split(50))
