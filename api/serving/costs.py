"""What minibatches of a version cost, as measured, and what follows for waiting and for their size."""

import math
from dataclasses import dataclass

MEMORY = 0.98  # weight of what was known, at each measurement: about the last fifty count
SPREAD = 0.01  # least variance of the sizes, beside their mean square, that tells fixed from each
# A minibatch may always hold so many images. What is measured beside other work makes large minibatches look worse than
# they are, and a service whose minibatches are too small has work for ever: it would not find out.
SMALLEST_LIMIT = 8
WASTE = 0.01  # share of the time for an image that may be spent on its minibatch's fixed cost: docs/benchmarks.md


@dataclass(slots=True)
class Costs:
    """Seconds of a minibatch as fixed + each · images: a weighted least-squares fit. For one thread at a time."""

    _weight: float = 0.0
    _images: float = 0.0  # weighted sums of images, of their squares, …
    _squares: float = 0.0
    _seconds: float = 0.0
    _products: float = 0.0  # … and of images × seconds

    def note(self, images: int, seconds: float) -> None:
        """Count a minibatch that was computed."""
        self._weight = MEMORY * self._weight + 1
        self._images = MEMORY * self._images + images
        self._squares = MEMORY * self._squares + images * images
        self._seconds = MEMORY * self._seconds + seconds
        self._products = MEMORY * self._products + images * seconds

    @property
    def line(self) -> tuple[float, float] | None:
        """Fixed seconds and seconds of each image; None where the measurements do not tell them apart.

        They do not after some hundred minibatches of one size. So a wrong line that keeps minibatches small is
        forgotten.
        """
        spread = self._weight * self._squares - self._images**2
        if spread <= SPREAD * self._weight * self._squares:
            return None
        each = (self._weight * self._products - self._images * self._seconds) / spread
        fixed = (self._seconds - each * self._images) / self._weight
        return (max(fixed, 0.0), each) if each > 0 else None

    def worth_waiting(self, limit: float) -> float:
        """Seconds, at most ``limit``, that waiting for more images can save: one fixed cost."""
        return limit if (line := self.line) is None else min(limit, line[0])

    def enough(self, most: int) -> int:
        """Images, at most ``most``, from which on a larger minibatch saves less than `WASTE` of an image's time.

        At least `SMALLEST_LIMIT`, if ``most`` allows it.
        """
        if (line := self.line) is None:
            return most
        fixed, each = line
        return min(most, max(SMALLEST_LIMIT, math.ceil(fixed / (WASTE * each))))
