"""The bound of a drop in accuracy: against closed forms, against a likelihood that is searched, and by its coverage."""

import math

import numpy as np
import pytest

from trainer.export.paired import Paired

Z = 1.6448536269514722


def bound(images: int, lost: int, won: int) -> float:
    return Paired(images, images - lost - won, lost, won).drop_at_most


@pytest.mark.parametrize("images", [1, 20, 538, 2000])
def test_without_a_difference_it_has_a_closed_form(images):
    assert bound(images, 0, 0) == pytest.approx(Z**2 / (images + Z**2), rel=1e-6)


def test_as_many_images_are_needed_to_show_half_a_point_as_the_documents_say():
    assert bound(538, 0, 0) > 0.005 > bound(539, 0, 0)
    assert bound(2000, 4, 0) < 0.005 < bound(2000, 5, 0)
    assert bound(2000, 17, 17) < 0.005 < bound(2000, 18, 18)


def test_nothing_is_known_without_images():
    assert Paired(0, 0, 0, 0).drop == 0
    assert Paired(0, 0, 0, 0).drop_at_most == 1


@pytest.mark.parametrize(("images", "lost", "won"), [(44, 1, 0), (50, 12, 2), (200, 9, 7), (30, 29, 1), (1000, 3, 8)])
def test_it_is_where_the_score_test_just_refutes_the_drop(images, lost, won):
    """The nuisance parameter is found by search, not by the root that the code computes."""
    margin = bound(images, lost, won)
    shares = np.linspace(1e-9, (1 - margin) / 2, 400_001)  # right by the second alone
    others = np.maximum(1 - 2 * shares - margin, 1e-300)
    likelihood = lost * np.log(shares + margin) + won * np.log(shares) + (images - lost - won) * np.log(others)
    share = float(shares[likelihood.argmax()])
    score = (lost - won - images * margin) / math.sqrt(images * (2 * share + margin * (1 - margin)))
    assert score == pytest.approx(-Z, abs=2e-3)
    assert margin >= (lost - won) / images


def test_whoever_lost_all_may_have_lost_all():
    assert bound(30, 30, 0) == 1


def test_a_network_that_is_much_better_has_lost_nothing():
    assert bound(100, 10, 30) == pytest.approx(0, abs=1e-9)
    assert Paired(100, 60, 10, 30).drop == pytest.approx(-0.2)


def test_it_grows_with_what_was_lost_and_falls_with_the_images():
    assert bound(1000, 1, 0) < bound(1000, 2, 0) < bound(1000, 9, 0)
    assert bound(2000, 2, 0) < bound(1000, 2, 0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03])
def test_a_drop_that_is_too_large_by_a_hair_is_seldom_allowed(share):
    """Of networks that lose half a point, about one in twenty passes: here 7 % at most, among 2,000 images."""
    drawn = np.random.default_rng(0).multinomial(2000, [share + 0.005, share, 0.995 - 2 * share], size=4000)
    passed = sum(bound(2000, int(lost), int(won)) <= 0.005 for lost, won, _ in drawn)
    assert passed / len(drawn) < 0.07
