"""Which execution a version gets on a device."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from api.serving.execution import sessions
from api.serving.execution.devices import Device
from api.serving.execution.sessions import Images, Session
from api.serving.execution.torch_process import TorchProcess
from trainer.networks.manifest import EXECUTABLE, INT8


class Execution(Protocol):
    """A version on a device, ready to compute."""

    def probabilities(self, images: Sequence[Images]) -> list[NDArray[np.float32]]:
        """Probabilities [n, classes] of each array of images, all computed together."""


class Runtime:
    """Opens versions: by ONNX Runtime, or by a torch process if it cannot compute them there."""

    def __init__(self, threads: int, *, precision: Literal["float32", "int8"] = "float32") -> None:
        """Let a computation on the processor use ``threads``, and ``precision`` where a version has a graph in it."""
        self._threads, self._precision = threads, precision
        self._processes: dict[Device, TorchProcess] = {}

    def open(self, folder: Path, device: Device) -> Execution:
        """The version in a folder on a device; the folder may be deleted afterwards.

        Raises what ONNX Runtime or the torch process raises for a version that does not load.
        """
        files = {path.name for path in folder.iterdir()}
        if (graph := self.graph_of(files, device)) is not None:
            gpu = None if device.kind == "cpu" else device.index
            return Session(folder / graph, gpu=gpu, threads=self._threads)
        if device not in self._processes:
            self._processes.setdefault(device, TorchProcess(str(device), self._threads))
        return self._processes[device].open(folder)

    def graph_of(self, files: Container[str], device: Device) -> str | None:
        """The graph, of a version's files, that is computed on a device; None if torch computes the version there."""
        if device.kind == "cpu" and self._precision == "int8" and INT8 in files:
            return INT8
        return EXECUTABLE if EXECUTABLE in files and (device.kind == "cpu" or sessions.gpus() > 0) else None

    def stop(self) -> None:
        """End the torch processes."""
        for process in self._processes.values():
            process.stop()
