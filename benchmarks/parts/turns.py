"""Rivals that take turns in one process, so that whatever else the machine does meets all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

Rivals = Mapping[str, Callable[[], object]]


class Turns:
    """Seconds of each rival, round by round."""

    def __init__(self, rivals: Rivals, device: torch.device) -> None:
        """Nothing runs before `round`."""
        self._rivals, self._device = dict(rivals), device
        self._rounds = 0
        self.seconds: dict[str, list[float]] = {name: [] for name in rivals}

    def round(self) -> None:
        """Every rival once, another one first each time."""
        names = list(self._rivals)
        first = self._rounds % max(len(names), 1)
        for name in names[first:] + names[:first]:
            began = now(self._device)
            self._rivals[name]()
            self.seconds[name].append(now(self._device) - began)
        self._rounds += 1


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def ratio(of: list[float], to: list[float]) -> tuple[float, float, float]:
    """How many times as long as ``to``: median, least and most of the rounds."""
    each = [mine / other for mine, other in zip(of, to, strict=True)]
    return median(each), min(each), max(each)
