"""Exact intervals and tests, beside those of SciPy."""

import pytest
from scipy import stats  # type: ignore[import-untyped]

from storage.statistics import interval, mcnemar

COUNTS = [(hits, trials) for trials in (1, 2, 7, 50, 1000) for hits in (0, 1, trials // 2, trials - 1, trials)]


@pytest.mark.parametrize(("hits", "trials"), [*COUNTS, (49_000, 50_000), (3, 50_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_interval_is_clopper_and_pearson_s(hits: int, trials: int, confidence: float):
    expected = stats.binomtest(hits, trials).proportion_ci(confidence, method="exact")
    assert interval(hits, trials, confidence=confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_without_trials_nothing_is_known():
    assert interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 5), (6, 5), (1, 0)])
def test_counts_that_cannot_be_are_refused(hits: int, trials: int):
    with pytest.raises(ValueError, match="cannot be"):
        interval(hits, trials)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 0), (3, 3), (12, 5), (200, 260), (3000, 2800)])
def test_the_p_value_is_that_of_an_exact_binomial_test(first: int, second: int):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_counts_below_nothing_are_refused():
    with pytest.raises(ValueError, match="cannot be counts"):
        mcnemar(-1, 3)
