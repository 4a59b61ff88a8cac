"""Where an increment tells how far it is, and what ends it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class LossNotFinite(Exception):
    """Training diverged; another attempt with the same recipe would as well."""


class Report(Protocol):
    """Where the stages of an increment tell how far they are."""

    def progress(self, **state: Any) -> None:
        """Say where things stand now; most calls are passed over, see `due`."""

    def due(self) -> bool:
        """Whether a call of `progress` would be passed on, for callers to whom finding out the state has a price."""

    def alive(self) -> None:
        """Say that there is nothing new, but that work goes on; most calls are passed over."""

    def opaque(self) -> AbstractContextManager[None]:
        """Take a step that cannot say how far it is."""

    def epoch(self, **done: Any) -> None:
        """Say that an epoch is complete."""


class SilentReport:
    """A report nobody reads, for increments trained in process."""

    def progress(self, **state: Any) -> None:
        """Say nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def alive(self) -> None:
        """Say nothing."""

    def opaque(self) -> AbstractContextManager[None]:
        """Say nothing."""
        return nullcontext()

    def epoch(self, **done: Any) -> None:
        """Say nothing."""
