"""Which execution a version gets on a device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from api.serving.execution import sessions
from api.serving.execution.devices import Device
from api.serving.execution.sessions import Images, Session
from api.serving.execution.torch_process import TorchProcess
from trainer.networks.manifest import EXECUTABLE


class Execution(Protocol):
    """A version on a device, ready to compute."""

    def probabilities(self, images: Sequence[Images]) -> list[NDArray[np.float32]]:
        """Probabilities [n, classes] of each array of images, all computed together."""


class Runtime:
    """Opens versions: by ONNX Runtime, or by a torch process if it cannot compute them there."""

    def __init__(self, threads: int) -> None:
        """Let a computation on the processor use ``threads``."""
        self._threads = threads
        self._processes: dict[Device, TorchProcess] = {}

    def open(self, folder: Path, device: Device) -> Execution:
        """The version in a folder on a device; the folder may be deleted afterwards.

        Raises what ONNX Runtime or the torch process raises for a version that does not load.
        """
        executable = folder / EXECUTABLE
        if executable.exists() and self.computes_on(device):
            gpu = None if device.kind == "cpu" else device.index
            return Session(executable, gpu=gpu, threads=self._threads)
        if device not in self._processes:
            self._processes.setdefault(device, TorchProcess(str(device), self._threads))
        return self._processes[device].open(folder)

    def computes_on(self, device: Device) -> bool:
        """Whether ONNX Runtime can compute on a device."""
        return device.kind == "cpu" or sessions.gpus() > 0

    def stop(self) -> None:
        """End the torch processes."""
        for process in self._processes.values():
            process.stop()
