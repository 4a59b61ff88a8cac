"""Statistics of counts of images: exact intervals of shares, and exact tests of paired comparisons."""

import math
from functools import lru_cache

CONFIDENCE = 0.95
_STEPS, _PRECISION = 300, 1e-15  # of the continued fraction
_TRIES, _CLOSE = 200, 1e-13  # of the search for a bound, which takes about five; and its precision, relative
_TINY = 1e-300


@lru_cache(maxsize=4096)
def interval(hits: int, trials: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper and Pearson's two-sided interval (1934) of a share of which ``hits`` of ``trials`` were seen.

    (0, 1) without trials. Raises ValueError for counts that cannot be.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials} cannot be")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _quantile(tail, hits, trials - hits + 1)
    high = 1.0 if hits == trials else _quantile(1 - tail, hits + 1, trials - hits)
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p value of McNemar's test (1947), without margin.

    It is the probability of a split at least as uneven, if each image on which exactly one of two was right were as
    likely to be one's as the other's; 1 if there is no such image.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"{only_first} and {only_second} cannot be counts")
    trials, fewer = only_first + only_second, min(only_first, only_second)
    tail = math.fsum(
        math.exp(math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - trials * math.log(2))
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def _quantile(share: float, a: float, b: float) -> float:
    """The x at which the beta distribution function of a and b is ``share``: Newton's method within closing bounds."""
    low, high, x = 0.0, 1.0, a / (a + b)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(_TRIES):
        surplus = _beta(a, b, x) - share
        low, high = (low, x) if surplus > 0 else (x, high)
        slope = math.exp(scale + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))
        following = x - surplus / slope if slope > 0 else low
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - x) <= _CLOSE * x:
            return following
        x = following
    return x


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for 0 < x < 1 (DLMF 8.17.22)."""
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast
        return 1 - _beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of `_beta`, by Lentz's method."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= d * c
        if abs(d * c - 1) < _PRECISION:
            break
    return value
