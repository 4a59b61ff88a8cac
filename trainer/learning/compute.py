"""How a training is computed: device, precision and threads, chosen before the first step, recorded, and kept."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from trainer.recipes import Precision

Computed = Literal["float32", "bfloat16"]
AMPERE = 8  # the first generation of CUDA devices (by compute capability) that multiplies bfloat16


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """What weights depend on beside data and recipe; a training that is resumed goes on in the same way."""

    device: str  # type, such as cpu or cuda: which of several equal ones does not matter
    precision: Computed  # of the networks' convolutions and linear layers; weights, losses and heads stay float32
    threads: int  # of one operation on the CPU

    def autocast(self) -> AbstractContextManager[None]:
        """Within it networks are computed in the precision."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def to_json(self) -> dict[str, Any]:
        """The record kept in checkpoints and in version.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ComputeConfig":
        """The inverse of `to_json`."""
        return cls(device=str(record["device"]), precision=record["precision"], threads=int(record["threads"]))


def occupy(device: torch.device) -> None:
    """Have this process compute on it and on no other.

    Where a call names none, torch takes the first GPU, and hundreds of MB of it: page-locked memory, the events that
    `trainer.learning.progress` waits for, and the generator whose state a checkpoint keeps would be that one's.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def choose(device: torch.device, precision: Precision) -> ComputeConfig:
    """The execution on a device with as many threads as torch has now, in the precision that a recipe asks for.

    ``auto`` is bfloat16 wherever the processor multiplies it by itself; there training is 1.4 to 1.5 times as fast as
    in float32 and comes to the same accuracy (docs/benchmarks.md). Where it is emulated it is slower.
    """
    chosen: Computed = precision if precision != "auto" else "bfloat16" if bfloat16_is_native(device) else "float32"
    return ComputeConfig(device=device.type, precision=chosen, threads=torch.get_num_threads())


def bfloat16_is_native(device: torch.device) -> bool:
    """Whether the device has instructions for it: AVX-512 BF16 or AMX on a CPU, Ampere or later on CUDA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    if device.type == "cpu":
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # new in torch 2.13
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False
