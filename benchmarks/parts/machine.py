"""The line that says where a measurement was made."""

import os
import platform
from importlib.metadata import version


def described(*, threads: int | None = None, device: str = "cpu") -> str:
    """System, processors, releases, threads that compute (all processors, if not said) and the device."""
    processors = len(os.sched_getaffinity(0))
    said = [
        f"{platform.platform()}",
        f"{processors} processors",
        _device(device),
        f"Python {platform.python_version()}",
        f"torch {version('torch')}",
        f"threads: {threads or processors}",
    ]
    return ", ".join(said)


def _device(device: str) -> str:
    if device == "cpu":
        return "device cpu"
    import torch  # not where it is not needed: it takes seconds

    return torch.cuda.get_device_name(device)
