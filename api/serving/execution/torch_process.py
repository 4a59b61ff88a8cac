"""Versions that a process of its own computes by torch, for GPUs and for networks that have no graph.

The API process imports no torch. The program is `trainer.networks.computing`, whose orders and answers are told there.
"""

import logging
import os
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from api.serving.execution.torch_program import (
    Pixels,
    TorchProcessEnded,
    TorchProcessError,
    TorchProgram,
    cuda_devices,
    is_available,
)

__all__ = ["TorchExecution", "TorchProcess", "TorchProcessError", "cuda_devices", "is_available"]

Result = TypeVar("Result")
Order = tuple[Mapping[str, Any], Sequence[Pixels]]  # what stands in its header, and its pixels

DTYPES = ("uint8", "float32")
MISSING = "torch is not installed, and this needs it: pip install '.[torch-serving]' in Accrete's checkout"

log = logging.getLogger(__name__)


class TorchProcess:
    """The torch process of one device, started when it is first needed, and again when it has ended."""

    def __init__(self, device: str, threads: int) -> None:
        """``device`` as torch names it: cpu, cuda:0; ``threads`` compute on a CPU."""
        self.device, self.threads = device, threads
        self._lock = threading.Lock()  # one conversation at a time
        self._guard = threading.Lock()  # of the next two
        self._program: TorchProgram | None = None
        self._stopped = False
        self._loaded: set[str] = set()  # keys of the versions that the present program has
        # Keys to be dropped with the next conversation. A finaliser puts them, on any thread, which may hold the lock.
        self.dropped: SimpleQueue[str] = SimpleQueue()

    @property
    def pid(self) -> int | None:
        """Process id of the program started last, None before the first start."""
        program = self._program
        return None if program is None else program.pid

    def open(self, folder: Path) -> "TorchExecution":
        """Load the version in a folder, which is not needed afterwards; raises `TorchProcessError`, and OSError."""
        return TorchExecution(self, folder)

    def stop(self) -> None:
        """End the process, and a conversation that is under way; whatever is asked later raises."""
        with self._guard:
            self._stopped = True
            if self._program is not None:
                self._program.kill()
        with self._lock:
            if self._program is not None:
                self._program.end()

    def load(self, key: str, folder: Path) -> dict[str, int]:
        """Classes, channels and image size of the version in a folder, which gets the key."""
        return self._twice(lambda: self._load(self._running(), key, folder))

    def compute(self, key: str, folder: Path, orders: Sequence[Order]) -> list[bytearray]:
        """The bytes of the answers; a new process loads the folder again."""

        def work() -> list[bytearray]:
            program = self._running()
            if key not in self._loaded:
                self._load(program, key, folder)
            return [program.ask({"order": "compute", "key": key, **header}, arrays)[1] for header, arrays in orders]

        return self._twice(work)

    def _twice(self, work: Callable[[], Result]) -> Result:
        """Hold a conversation, once more if the process has ended meanwhile."""
        with self._lock:
            try:
                return work()
            except TorchProcessEnded:
                return work()

    def _load(self, program: TorchProgram, key: str, folder: Path) -> dict[str, int]:
        form, _ = program.ask({"order": "load", "key": key, "folder": str(folder)})
        self._loaded.add(key)
        return form

    def _running(self) -> TorchProgram:
        """The program, started if necessary, without the versions that nobody needs any more."""
        program = self._program
        if program is None or program.has_ended:
            program = self._start()
        with suppress(Empty):
            while True:
                key = self.dropped.get_nowait()
                if key in self._loaded:
                    self._loaded.remove(key)
                    program.ask({"order": "drop", "key": key})
        return program

    def _start(self) -> TorchProgram:
        if not is_available():
            raise TorchProcessError(MISSING)
        self._loaded.clear()
        with self._guard:
            if self._stopped:
                raise TorchProcessError(f"the torch process of {self.device} was stopped")
            if self._program is not None:
                status = self._program.end()
                log.warning("the torch process of %s has ended with status %s: another is started", self.device, status)
            program = self._program = TorchProgram(self.device, self.threads)
        program.await_start()
        return program


class TorchExecution:
    """A version, computed by a torch process; dropped there when this object is closed or garbage."""

    def __init__(self, process: TorchProcess, folder: Path) -> None:
        """Keep the files, since the process may have to load them again, and have it load them."""
        self._process, self._key = process, uuid.uuid4().hex
        kept = tempfile.TemporaryDirectory(prefix="accrete-torch-")
        self._folder = Path(kept.name)
        self.close = weakref.finalize(self, _release, process.dropped, self._key, kept)
        try:
            _keep(folder, self._folder)
            form = process.load(self._key, self._folder)
        except BaseException:
            self.close()
            raise
        self.classes, self.channels, self.image_size = form["classes"], form["channels"], form["image_size"]

    def probabilities(self, images: Sequence[Pixels]) -> list[NDArray[np.float32]]:
        """Float32 [n, classes] for each array of pixels, uint8 or float32 in 0 … 1, [n, channels, size, size].

        Arrays of one type are computed together. Raises ValueError for other arrays, and `TorchProcessError`.
        """
        form = (self.channels, self.image_size, self.image_size)
        for array in images:
            if array.dtype.name not in DTYPES or array.shape[1:] != form:
                raise ValueError(f"expected uint8 or float32 [n, *{form}], got {array.dtype} {array.shape}")
        if not self.close.alive:
            raise TorchProcessError("the version was closed")
        found: list[NDArray[np.float32]] = [np.empty((0, self.classes), np.float32)] * len(images)
        places = [[n for n, one in enumerate(images) if one.dtype.name == dtype and len(one)] for dtype in DTYPES]
        groups = [group for group in places if group]
        orders = [_order([images[n] for n in group]) for group in groups]
        for group, answer in zip(groups, self._process.compute(self._key, self._folder, orders), strict=True):
            rows = np.frombuffer(answer, np.float32).reshape(-1, self.classes)
            ends = np.cumsum([len(images[n]) for n in group])
            for n, part in zip(group, np.split(rows, ends[:-1]), strict=True):
                found[n] = part
        return found


def _order(arrays: Sequence[Pixels]) -> Order:
    return {"images": sum(map(len, arrays)), "dtype": arrays[0].dtype.name}, arrays


def _keep(folder: Path, target: Path) -> None:
    """Link the files of a version into another folder, or copy them where they cannot be linked."""
    for file in filter(Path.is_file, folder.iterdir()):
        try:
            os.link(file.resolve(), target / file.name)
        except OSError:  # another file system
            shutil.copyfile(file, target / file.name)


def _release(dropped: SimpleQueue[str], key: str, kept: tempfile.TemporaryDirectory[str]) -> None:
    dropped.put(key)  # can be called while another call of it is interrupted, unlike a lock
    kept.cleanup()
