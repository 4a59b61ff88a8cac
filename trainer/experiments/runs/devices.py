"""Where runs compute, and how many at once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from storage.errors import Invalid


@dataclass(frozen=True)
class Machine:
    """What the runs of an experiment compute with."""

    devices: tuple[str, ...]
    jobs: int  # runs at once
    threads: int  # of each run


def shared(devices: tuple[str, ...], *, jobs: int | None, threads: int | None) -> Machine:
    """One run on each device, the processors divided among the runs, unless other numbers are given."""
    jobs = jobs or len(devices)
    return Machine(devices, jobs, threads or max(1, len(os.sched_getaffinity(0)) // jobs))


def present(wanted: Sequence[str]) -> tuple[str, ...]:
    """The devices that names stand for, each once; raises `Invalid` for one that this machine does not have."""
    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    here = {"auto": gpus or ("cpu",), "cpu": ("cpu",), **{gpu: (gpu,) for gpu in gpus}}
    if gpus:
        here["cuda"] = gpus[:1]
    if missing := [name for name in wanted if name not in here]:
        raise Invalid(f"--devices {', '.join(missing)}: here are {', '.join(here)}")
    return tuple(dict.fromkeys(device for name in wanted for device in here[name]))
