"""Signals that a process inherits as ignored, such as SIGHUP under nohup; they stay ignored.

SIGTERM is not one of them: a service that ignored it could only be killed.
"""

import signal
from collections.abc import Iterable

KEPT = (signal.SIGINT, signal.SIGHUP)


def ignored() -> tuple[signal.Signals, ...]:
    """The signals of ``KEPT`` that are ignored now; before handlers are installed, these are the inherited ones."""
    return tuple(number for number in KEPT if signal.getsignal(number) is signal.SIG_IGN)


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Ignore these signals (again); can be called on the main thread only."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
