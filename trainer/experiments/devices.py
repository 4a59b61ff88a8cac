"""Where runs compute."""

from collections.abc import Sequence

import torch

from storage.errors import Invalid


def present(wanted: Sequence[str]) -> tuple[str, ...]:
    """The devices that names stand for; raises `Invalid` for one that is not here."""
    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    here = {"auto": gpus or ("cpu",), "cpu": ("cpu",), **{gpu: (gpu,) for gpu in gpus}}
    if gpus:
        here["cuda"] = gpus[:1]
    if missing := [name for name in wanted if name not in here]:
        raise Invalid(f"--devices {', '.join(missing)}: here are {', '.join(here)}")
    return tuple(device for name in wanted for device in here[name])
