"""Where predictions are computed: the processor, or GPUs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api.serving.execution import sessions, torch_process


@dataclass(frozen=True, slots=True)
class Device:
    """The processor, or one GPU."""

    kind: str  # "cpu" or "cuda"
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


CPU = Device("cpu")
_NAME = re.compile(r"cpu|cuda(?::([0-9]+))?")


def serving_devices(wanted: str) -> list[Device]:
    """The devices a setting names; ``auto`` is every GPU that can be used, or the processor where there is none.

    Raises ValueError for a name that is none of cpu, cuda and cuda:n.
    """
    if wanted == "auto":
        return [Device("cuda", index) for index in range(_gpus())] or [CPU]
    return [_device(name.strip()) for name in wanted.split(",")]


def own_devices(devices: Sequence[Device], worker: int, *, of: int) -> list[Device]:
    """The devices of process ``worker`` among ``of``, dealt out in turn; shared only if there are too few of them."""
    return list(devices[worker::of]) or [devices[worker % len(devices)]]


def _device(name: str) -> Device:
    if (found := _NAME.fullmatch(name)) is not None:
        return Device(name.partition(":")[0], int(found[1] or 0))
    raise ValueError(f"ACCRETE_SERVING_DEVICES: {name!r} is no device: name cpu, cuda or cuda:1, or auto")


def _gpus() -> int:
    """Number of GPUs that ONNX Runtime can use, else of those that torch can use."""
    return sessions.gpus() or torch_process.cuda_devices()
