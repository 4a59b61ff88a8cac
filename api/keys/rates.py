"""Rate limits of keys, counted across all processes that share a port."""

import mmap
import time
from ctypes import c_double
from dataclasses import dataclass
from pathlib import Path

_ROUNDING = 1e-3  # tokens; the rounding error of large clock values


@dataclass
class Bucket:
    """A token bucket: it fills at ``rate`` and holds the tokens of one second, at least one; a request takes one.

    Its only state is the time when it will be full again, as in the generic cell rate algorithm (ITU-T I.371).
    Processes can share this one number without a lock; two requests in the same instant may take the same token.
    """

    rate: float  # tokens a second
    full_at: c_double  # seconds on some clock

    def wait(self, now: float) -> float:
        """Take a token and return 0; if there is none, return the seconds until there is one."""
        full_at = max(self.full_at.value, now)
        tokens = max(1.0, self.rate) - (full_at - now) * self.rate
        if tokens < 1 - _ROUNDING:
            return (1 - tokens) / self.rate
        self.full_at.value = full_at + 1 / self.rate
        return 0.0


class Rates:
    """A bucket for each key that has a rate."""

    def __init__(self, folder: Path | None) -> None:
        """Share the buckets with all processes that are given the same folder; None: with no other process."""
        self._folder = folder
        self._buckets: dict[str, Bucket] = {}

    def wait(self, key_id: str, rate: float) -> float:
        """Take a token of a key's bucket and return 0; if there is none, return the seconds until there is one."""
        if (bucket := self._buckets.get(key_id)) is None:
            bucket = self._buckets[key_id] = Bucket(rate, self._number(key_id))
        return bucket.wait(time.monotonic())  # the same clock in every process of a machine

    def _number(self, key_id: str) -> c_double:
        if self._folder is None:
            return c_double(0.0)
        with (self._folder / f"rate-{key_id}").open("ab+") as file:
            file.truncate(8)  # changes nothing if another process has done so before
            return c_double.from_buffer(mmap.mmap(file.fileno(), 8))
