"""Signals that whoever started a process has it ignore, as nohup does with SIGHUP: they stay ignored.

SIGTERM is none of them: a service that could not be asked to end would have to be killed.
"""

import signal
from collections.abc import Iterable

KEPT = (signal.SIGINT, signal.SIGHUP)


def ignored() -> tuple[signal.Signals, ...]:
    """Those that are ignored now; asked for before handlers are installed, it is what was inherited."""
    return tuple(number for number in KEPT if signal.getsignal(number) is signal.SIG_IGN)


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Ignore them (again); on the main thread only."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
