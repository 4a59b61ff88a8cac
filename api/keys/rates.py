"""How fast each key may ask, counted together by all processes that share a port."""

import mmap
import time
from ctypes import c_double
from dataclasses import dataclass
from pathlib import Path

_ROUNDING = 1e-3  # tokens, by which clocks of large numbers err


@dataclass
class Bucket:
    """Tokens that fill at a rate, as many as come in a second; a request takes one (a token bucket).

    All it holds is the time when it is full again (the generic cell rate algorithm, ITU-T I.371, has it so): one
    number, which processes can share without a lock. Two that take a token in the same instant may take the same.
    """

    rate: float  # tokens a second
    full_at: c_double  # seconds on some clock

    def wait(self, now: float) -> float:
        """Take a token: 0; or the seconds until there is one again."""
        full_at = max(self.full_at.value, now)
        tokens = max(1.0, self.rate) - (full_at - now) * self.rate
        if tokens < 1 - _ROUNDING:
            return (1 - tokens) / self.rate
        self.full_at.value = full_at + 1 / self.rate
        return 0.0


class Rates:
    """A bucket for each key that has a rate."""

    def __init__(self, folder: Path | None) -> None:
        """Share them with whoever is given the same folder; None: with nobody."""
        self._folder = folder
        self._buckets: dict[str, Bucket] = {}

    def wait(self, key_id: str, rate: float) -> float:
        """Seconds until this key may ask again, 0 if now."""
        if (bucket := self._buckets.get(key_id)) is None:
            bucket = self._buckets[key_id] = Bucket(rate, self._number(key_id))
        return bucket.wait(time.monotonic())  # which is the same in every process of a machine

    def _number(self, key_id: str) -> c_double:
        if self._folder is None:
            return c_double(0.0)
        with (self._folder / f"rate-{key_id}").open("ab+") as file:
            file.truncate(8)  # as long already where another process was first, and no shorter for it
            return c_double.from_buffer(mmap.mmap(file.fileno(), 8))
