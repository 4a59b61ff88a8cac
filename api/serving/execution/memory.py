"""Memory that was freed, returned from the allocator to the system.

The allocator of the system keeps freed pages: those of versions that were replaced (onnxruntime#26831), and those in
which a graph was read, which are as large as the version again.
"""

import ctypes
import threading

_freed = threading.Event()


def note_freed() -> None:
    """Tell that a version was loaded or dropped; from any thread."""
    _freed.set()


def give_back() -> None:
    """Return free memory to the system, if a version was loaded or dropped since the last call.

    Takes some milliseconds. Does nothing without glibc.
    """
    if not _freed.is_set():
        return
    _freed.clear()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
