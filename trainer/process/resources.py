"""What a training process takes from a machine that it shares with serving: processor time and memory, both bounded."""

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

if TYPE_CHECKING:  # processor time is yielded before torch is loaded
    import torch

_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_TRIES, _AUTOGROUP_SECONDS = 5, 0.1  # the kernel takes one such request in 0.1 s, from whomever
_GRAIN = 1 << 15  # elements a thread, from which torch uses several
_STACK = 8 << 20  # bytes a thread may reserve where no limit says otherwise
_LEAST = 128 << 20  # bytes to train with; in less the interpreter itself ends in ways that nobody can explain
# What torch says for want of memory, with a type of its own only on a GPU.
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory|\Astd::bad_alloc\Z")
# What may have other reasons, but hardly in a process whose memory is bounded: oneDNN, OpenMP and Python itself.
_NO_MEMORY_IF_BOUND = re.compile(
    r"\Acould not create a (primitive|memory)|\Acan't start new thread|\Aerror return without exception set"
)


class MemoryTooSmall(AccreteError):
    """Not even what a training process takes before it trains is allowed."""


def yield_processor(niceness: int) -> None:
    """Let serving go first from now on, in every thread and process that comes from this thread."""
    os.nice(niceness)
    if niceness == 0:
        return
    # What is woken in this class takes the processor from nobody: training's threads wake each other all the time.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Where Linux first divides the processor among sessions, niceness counts only within one, and ours is our own.
    for _ in range(_AUTOGROUP_TRIES):
        try:
            _AUTOGROUP.write_text(str(niceness))
        except BlockingIOError:
            time.sleep(_AUTOGROUP_SECONDS)
        except OSError:  # there is no such division here, or it is not ours to change
            return
        else:
            return


def bound_memory(settings: Settings, *, device: "torch.device") -> None:
    """Hold this process to the memory it is allowed; called when torch is loaded and has its threads' number.

    The bound is one of private memory that is filled. The kernel's (RLIMIT_DATA) is one of private memory that is
    reserved, so what is reserved and empty now – threads' stacks, a GPU's address space – comes on top. Raises
    `MemoryTooSmall` when nearly as much is filled already.
    """
    import torch

    if device.type == "cuda" and settings.training_gpu_share is not None:
        torch.cuda.set_per_process_memory_fraction(settings.training_gpu_share, device)
    bound = settings.training_memory_bytes
    if bound is None:
        return
    threads = torch.get_num_threads()
    torch.ones(threads * _GRAIN).add_(1)  # begins the threads
    torch.zeros(1, device=device)  # and what a GPU needs of this process
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
    """Take the bound back, for a process that has only to say why it ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def shortage(error: BaseException, settings: Settings) -> str | None:
    """What to do about memory that ran out; None for an error of another kind."""
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
    """The error and what it was raised from."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _ways_out(bound: str | None) -> str:
    wider = f", or raise {bound}" if bound is not None else ""
    return f"lower minibatch in the recipe, or send fewer images at a time{wider}"


def _private_bytes() -> tuple[int, int]:
    """Private memory of this process: reserved, and filled."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    reserved, filled = (int(fields[name].split()[0]) << 10 for name in ("VmData", "RssAnon"))
    return reserved, filled


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
