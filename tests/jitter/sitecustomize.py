"""Threads that come late, in every process of a test run: `make jitter` looks for races so.

Python imports a module of this name first, where PYTHONPATH leads to it, in the services that tests start, too. Some of
what is handed to threads then waits before or after its work, threads begin late, and each process changes between
threads at an interval of its own. What fails only then depends on an order that nobody has promised.
"""

import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from typing import Any

from anyio import to_thread

_SHARE, _SECONDS = 0.1, 0.08  # of all work that waits, and for how long at most; twice, before and after
_STARTS_SHARE, _STARTS_SECONDS = 0.2, 0.05
_INTERVALS = (1e-5, 1e-4, 5e-3, 2e-2)  # seconds until a thread has to let another one go on; 5e-3 is Python's own

_chance = random.Random()  # of the system: no two processes wait alike
_run_sync = to_thread.run_sync
_submit = ThreadPoolExecutor.submit
_run = threading.Thread.run


def _wait(share: float, seconds: float) -> None:
    if _chance.random() < share:
        time.sleep(_chance.uniform(0, seconds))


def _late(work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def waited(*args: Any, **options: Any) -> Any:
        _wait(_SHARE, _SECONDS)
        try:
            return work(*args, **options)
        finally:
            _wait(_SHARE, _SECONDS)

    return waited


async def _late_sync(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return await _run_sync(_late(work), *args, **options)


def _late_submit(self: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
    return _submit(self, _late(work), *args, **options)


def _begin_late(self: threading.Thread) -> None:
    _wait(_STARTS_SHARE, _STARTS_SECONDS)
    _run(self)


sys.setswitchinterval(_chance.choice(_INTERVALS))
to_thread.run_sync = _late_sync  # type: ignore[assignment]
ThreadPoolExecutor.submit = _late_submit  # type: ignore[assignment,method-assign]
threading.Thread.run = _begin_late  # type: ignore[method-assign]
