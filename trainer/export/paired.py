"""How much accuracy one network may have lost against another one: a paired comparison on the same images."""

import math
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95  # of the bound, which is one-sided
_QUANTILE = NormalDist().inv_cdf(CONFIDENCE)
_HALVINGS = 40  # of the interval in which the bound is looked for


@dataclass(frozen=True, slots=True)
class Paired:
    """Images that two networks classified, by which of the two was right."""

    images: int
    both_right: int
    only_first: int  # right by the first network alone
    only_second: int

    @property
    def drop(self) -> float:
        """The accuracy of the first network minus that of the second, in -1 … 1; 0 without images."""
        return (self.only_first - self.only_second) / self.images if self.images else 0.0

    @property
    def drop_at_most(self) -> float:
        """The upper bound of the drop, in 0 … 1, by Tango's score test; 1 without images.

        It is the smallest drop that the test would refute. Unlike an interval on the share of the images on which the
        two differ, it does not take it for certainty that they never differed on a few.
        """
        if self.only_first == self.images:  # also without images
            return 1.0
        low, high = max(self.drop, 0.0), 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._score(middle) < -_QUANTILE else (middle, high)
        return high

    def _score(self, margin: float) -> float:
        """Tango's statistic for a true drop of ``margin``, in 0 … 1 without the ends; about normal if that is true."""
        count, lost, won = self.images, self.only_first, self.only_second
        a = 2 * count
        b = -lost - won + (2 * count - lost + won) * margin
        c = -won * margin * (1 - margin)
        share = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)  # of images right by the second alone, most likely then
        variance = count * (2 * share + margin * (1 - margin))
        return (lost - won - count * margin) / math.sqrt(variance)
