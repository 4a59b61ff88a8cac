"""Decoding of image files in several processes: threads would wait for each other, for the interpreter's lock.

Nothing here may import torch, directly or indirectly: every process imports this module first, and starts in 0.05 s.
"""

import ctypes
import hashlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from trainer.ingestion.rows import put_at
from trainer.networks.pictures import Form, ImageRejected

_AHEAD = 2  # groups that are queued for each process; bounds memory
_PARENT_GONE = 77
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_KEPT_BYTES = 256 << 20  # above the 200 MB of a picture of 50 million pixels


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """Options of decoding, the same for all groups."""

    rows: Path  # file of a `trainer.ingestion.rows.Rows`, which takes the decoded images
    form: Form
    max_pixels: int  # of one image


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """A group of image files that lie near each other, in this order, in a larger file."""

    path: Path
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    first: int  # number of the first file's row; the others follow


class DecodedImage(NamedTuple):  # sent between processes in a third of a dataclass's time
    """The finding about an image file."""

    digest: str  # SHA-256
    fault: str | None  # why it is not an image; None if its row was written


def decoded(
    groups: Iterable[EncodedImages], options: DecodingOptions, *, processes: int
) -> Iterator[list[DecodedImage]]:
    """Findings of each group, in order; with fewer than two ``processes`` this process decodes everything.

    The processes end with the iterator, and with this process. An error in one of them is raised here. Raises
    BrokenProcessPool if one of them is killed.
    """
    if processes < 2:
        yield from (examine(group, options) for group in groups)
        return
    context = multiprocessing.get_context("spawn")  # a fork would carry torch's threads and the GPU along
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_process) as pool:
        calls = (pool.submit(examine, group, options) for group in groups)
        yield from _in_order(calls, ahead=_AHEAD * processes)


def examine(group: EncodedImages, options: DecodingOptions) -> list[DecodedImage]:
    """Decode the files of a group and write their rows; the row of a file that is not an image is zeros."""
    begin, end = group.offsets[0], group.offsets[-1] + group.sizes[-1]
    with group.path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), end - begin, begin)
    if len(data) != end - begin:
        raise EOFError(f"{group.path} ends before byte {end}")
    findings, rows = [], bytearray()
    for offset, size in zip(group.offsets, group.sizes, strict=True):
        one = data[offset - begin : offset - begin + size]
        fault = None
        try:
            rows += options.form.row(one, max_pixels=options.max_pixels)
        except ImageRejected as rejected:
            fault = rejected.reason
            rows += bytes(options.form.row_bytes)
        findings.append(DecodedImage(hashlib.sha256(one).hexdigest(), fault))
    with options.rows.open("r+b", buffering=0) as file:
        put_at(file.fileno(), rows, group.first * options.form.row_bytes)
    return findings


def _prepare_process() -> None:
    """Prepare a new process."""
    _keep_memory()
    _end_with_parent()


def _keep_memory() -> None:
    """Reuse the memory of one picture for the next, instead of returning it to the kernel and allocating it again.

    The kernel zeroes every page it hands out, for one process at a time: two processes that decode large photographs
    would be as slow as one (docs/benchmarks.md). Uses mallopt(3) of the GNU C library; no effect with another library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def _end_with_parent() -> None:
    """End this process when its parent has ended, for whatever reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(_PARENT_GONE)

    threading.Thread(target=watch, daemon=True).start()


def _in_order(calls: Iterator[Future[list[DecodedImage]]], *, ahead: int) -> Iterator[list[DecodedImage]]:
    """Results in the order of the calls, with a bounded number of them under way."""
    waiting = deque(islice(calls, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(islice(calls, 1))
