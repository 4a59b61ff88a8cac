"""Memory that versions gave back, returned from the allocator to the system.

The allocator of the system keeps freed pages. After many swaps, it would hold several times the memory of the versions
that are loaded (onnxruntime#26831).
"""

import ctypes
import threading

_released = threading.Event()


def note_release() -> None:
    """Tell that a version was dropped; from any thread."""
    _released.set()


def give_back() -> None:
    """Return free memory to the system, if a version was dropped since the last call; takes some milliseconds.

    Does nothing without glibc.
    """
    if not _released.is_set():
        return
    _released.clear()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
