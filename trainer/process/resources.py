"""Bounds on processor time and memory of a training process, on a machine that it shares with serving."""

import errno
import os
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import AccreteError
from storage.settings import Settings

if TYPE_CHECKING:  # `yield_processor` runs before torch is loaded
    import torch

_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_TRIES, _AUTOGROUP_SECONDS = 5, 0.1  # the kernel accepts one write in 0.1 s, over all processes
_GRAIN = 1 << 15  # elements per thread; from this size on torch uses several threads
_STACK = 8 << 20  # bytes that a thread's stack may reserve without a limit
_LEAST = 128 << 20  # bytes left for training at least; with less the interpreter itself fails without a clear error
# Messages of torch when memory runs out; only for a GPU is there a type of exception.
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory|\Astd::bad_alloc\Z")
# Messages of oneDNN, OpenMP and Python that almost always mean a lack of memory in a process with bounded memory.
_NO_MEMORY_IF_BOUND = re.compile(
    r"\Acould not create a (primitive|memory)|\Acan't start new thread|\Aerror return without exception set"
)


class MemoryTooSmall(AccreteError):
    """The bound is lower than the memory that a training process uses before it trains."""


def yield_processor(niceness: int) -> None:
    """Give serving priority over this thread, and over every thread and process that it starts from now on."""
    os.nice(niceness)
    if niceness == 0:
        return
    # A thread of this class preempts nobody when it is woken, and the threads of training wake each other all the time.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Where Linux divides the processor among sessions first (autogroup), niceness counts only within a session. This
    # process has a session of its own, so the niceness of the session is set too.
    for _ in range(_AUTOGROUP_TRIES):
        try:
            _AUTOGROUP.write_text(str(niceness))
        except BlockingIOError:
            time.sleep(_AUTOGROUP_SECONDS)
        except OSError:  # there is no autogroup here, or no permission to change it
            return
        else:
            return


def bound_memory(settings: Settings, *, device: "torch.device") -> None:
    """Limit the memory of this process as the settings say; called when torch is loaded and its threads are set.

    The setting bounds the private memory in use. The kernel's limit (RLIMIT_DATA) bounds the private memory that is
    reserved. So the memory that is reserved but unused now, such as threads' stacks and a GPU's address space, is added
    to the limit. Raises `MemoryTooSmall` if the memory in use leaves too little for training.
    """
    import torch

    if device.type == "cuda" and settings.training_gpu_share is not None:
        torch.cuda.set_per_process_memory_fraction(settings.training_gpu_share, device)
    bound = settings.training_memory_bytes
    if bound is None:
        return
    threads = torch.get_num_threads()
    torch.ones(threads * _GRAIN).add_(1)  # starts torch's threads
    torch.zeros(1, device=device)  # allocates what a GPU needs in this process
    reserved, filled = _private_bytes()
    if filled + _LEAST > bound:
        raise MemoryTooSmall(
            f"ACCRETE_TRAINING_MEMORY_BYTES allows {_mebibytes(bound)}, and a training process fills "
            f"{_mebibytes(filled)} before it begins: set it to {_mebibytes(filled + _LEAST)} at the least."
        )
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stacks = threads * (stack if stack != resource.RLIM_INFINITY else _STACK)  # of the threads that decode images
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = bound - filled + reserved + stacks
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def release_memory() -> None:
    """Remove the bound, for a process that only has to report why it ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def shortage(error: BaseException, settings: Settings) -> str | None:
    """A message on what to do if ``error`` means that memory ran out; None for any other error."""
    import torch

    for one in _chain(error):
        if isinstance(one, torch.OutOfMemoryError):
            share, bound = settings.training_gpu_share, "ACCRETE_TRAINING_GPU_SHARE"
            held = f"{share:.0%} of the GPU's memory" if share is not None else "the GPU has left"
            return f"training needs more memory than {held}: {_ways_out(bound if share is not None else None)}"
        allowed, bound = settings.training_memory_bytes, "ACCRETE_TRAINING_MEMORY_BYTES"
        if isinstance(one, MemoryError) or _says_no_memory(one, bounded=allowed is not None):
            held = f"the {_mebibytes(allowed)} it is allowed" if allowed is not None else "this machine has left"
            return f"training needs more memory than {held}: {_ways_out(bound if allowed is not None else None)}"
    return None


def _says_no_memory(error: BaseException, *, bounded: bool) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError | SystemError):
        return False
    said = str(error)
    return _NO_MEMORY.search(said) is not None or (bounded and _NO_MEMORY_IF_BOUND.search(said) is not None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, from the last to the first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _ways_out(bound: str | None) -> str:
    wider = f", or raise {bound}" if bound is not None else ""
    return f"lower minibatch in the recipe, or send fewer images at a time{wider}"


def _private_bytes() -> tuple[int, int]:
    """Private memory of this process in bytes: reserved, and in use."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    reserved, filled = (int(fields[name].split()[0]) << 10 for name in ("VmData", "RssAnon"))
    return reserved, filled


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
