"""How a training is computed: device, precision and threads, chosen before the first step and kept when it resumes."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from trainer.recipes import Precision

Computed = Literal["float32", "bfloat16"]
AMPERE = 8  # major compute capability of the first CUDA devices that multiply bfloat16


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """What the weights depend on beside data and recipe; a resumed training keeps the same configuration."""

    device: str  # type, such as cpu or cuda; the index does not matter
    precision: Computed  # of the networks' convolutions and linear layers; weights, losses and heads stay float32
    threads: int  # of one operation on the CPU

    def autocast(self) -> AbstractContextManager[None]:
        """A context in which networks are computed in ``precision``."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def to_json(self) -> dict[str, Any]:
        """The record kept in checkpoints and in version.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ComputeConfig":
        """The inverse of `to_json`."""
        return cls(device=str(record["device"]), precision=record["precision"], threads=int(record["threads"]))


def use_device(device: torch.device) -> None:
    """Make this GPU the default of this process; a device without an index changes nothing.

    Where a call names no device, torch uses the first GPU, and takes hundreds of MB of its memory. Page-locked memory,
    the events that `trainer.learning.progress` waits for, and the generator whose state is in a checkpoint would then
    belong to the first GPU.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def choose(device: torch.device, precision: Precision) -> ComputeConfig:
    """The configuration for a device, with torch's current number of threads and the precision of a recipe.

    ``auto`` is bfloat16 where the processor has instructions for it. There training is 1.4 to 1.5 times as fast as in
    float32, with the same accuracy (docs/benchmarks.md). Emulated bfloat16 is slower than float32.
    """
    chosen: Computed = precision if precision != "auto" else "bfloat16" if bfloat16_is_native(device) else "float32"
    return ComputeConfig(device=device.type, precision=chosen, threads=torch.get_num_threads())


def bfloat16_is_native(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions: AVX-512 BF16 or AMX on a CPU, Ampere or later on CUDA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    if device.type == "cpu":
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # new in torch 2.13
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False
