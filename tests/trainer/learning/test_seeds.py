"""Where chance comes from: every increment and every use has a sequence of its own."""

from itertools import product
from typing import get_args

from trainer.learning.seeds import Seeds, Use


def test_no_two_seeds_increments_or_uses_share_a_sequence():
    every = {Seeds(seed, t).of(use) for seed, t, use in product(range(20), range(20), get_args(Use))}
    assert len(every) == 20 * 20 * len(get_args(Use))
    assert all(0 <= seed < 2**63 for seed in every)


def test_a_sequence_is_the_same_wherever_it_is_asked_for():
    assert Seeds(7, 3).of("order") == Seeds(7, 3).of("order") == 10778719804021511
