"""Where an increment reports its progress, and the error that ends one that diverges."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class LossNotFinite(Exception):
    """Training diverged; another attempt with the same recipe would diverge too."""


class Report(Protocol):
    """Where the stages of an increment report their progress."""

    def progress(self, **state: Any) -> None:
        """Report the current state; most calls are ignored, see `due`."""

    def due(self) -> bool:
        """Whether a call of `progress` would be reported now, for callers whose state is expensive to determine."""

    def alive(self) -> None:
        """Report that work goes on, without any news; most calls are ignored."""

    def opaque(self) -> AbstractContextManager[None]:
        """A context for a step that cannot report its progress."""

    def epoch(self, **done: Any) -> None:
        """Report that an epoch is complete."""


class SilentReport:
    """A report that discards everything, for increments trained in process."""

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
