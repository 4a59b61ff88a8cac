"""What minibatches cost, and what follows from it."""

import random

import pytest

from api.serving.costs import SMALLEST_LIMIT, WASTE, Costs


def measured(fixed: float, each: float, *, sizes: tuple[int, ...] = (1, 8, 1, 8)) -> Costs:
    """Costs that are fixed + each · images."""
    costs = Costs()
    for images in sizes:
        costs.note(images, fixed + each * images)
    return costs


def test_the_line_is_found():
    assert measured(0.7e-3, 0.76e-3).line == pytest.approx((0.7e-3, 0.76e-3), rel=1e-6)


def test_the_line_is_found_through_noise():
    noise = random.Random(3)
    costs = Costs()
    for _ in range(300):
        images = noise.choice([1, 2, 4, 16, 32])
        costs.note(images, (1e-3 + 2e-3 * images) * noise.uniform(0.9, 1.1))
    assert costs.line is not None
    assert costs.line[1] == pytest.approx(2e-3, rel=0.05)
    assert costs.line[0] == pytest.approx(1e-3, abs=1e-3)


def test_what_was_long_ago_is_forgotten():
    costs = measured(5e-3, 9e-3)
    for images in (1, 8) * 200:
        costs.note(images, 1e-3 + 2e-3 * images)
    assert costs.line == pytest.approx((1e-3, 2e-3), rel=0.05)


@pytest.mark.parametrize("costs", [Costs(), measured(1e-3, 1e-3, sizes=(4, 4, 4)), measured(1e-3, -1e-4)])
def test_without_a_line_the_settings_hold(costs):
    assert costs.line is None
    assert costs.worth_waiting(0.002) == 0.002
    assert costs.enough(32) == 32


def test_nobody_waits_longer_than_it_can_save():
    assert measured(0.5e-3, 1e-3).worth_waiting(0.002) == pytest.approx(0.5e-3)
    assert measured(9e-3, 1e-3).worth_waiting(0.002) == 0.002
    assert measured(0.0, 1e-3).worth_waiting(0.002) == pytest.approx(0.0, abs=1e-9)


def test_a_minibatch_is_full_where_more_images_hardly_make_it_cheaper():
    fixed, each = 0.096e-3, 1e-3
    enough = measured(fixed, each).enough(32)
    assert enough == 10
    assert fixed / enough <= WASTE * each * 1.001
    assert measured(9e-3, 1e-3).enough(32) == 32
    assert measured(0.0, 1e-3).enough(32) == SMALLEST_LIMIT
    assert measured(0.0, 1e-3).enough(4) == 4


def test_a_wrong_line_that_keeps_minibatches_small_is_forgotten():
    costs = measured(-1e-3, 2e-3)
    assert costs.enough(32) == SMALLEST_LIMIT
    for _ in range(200):
        costs.note(costs.enough(32), 3e-3)
    assert costs.enough(32) == 32


def test_costs_below_nothing_are_nothing():
    assert measured(-1e-3, 2e-3).line == pytest.approx((0.0, 2e-3))
