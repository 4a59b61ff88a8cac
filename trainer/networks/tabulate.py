"""Measure what `table` holds, and write it: ``python -m trainer.networks.tabulate [NAME…]`` (``make networks``).

All networks take minutes. If some are named, only they are measured, and networks that the table does not have yet.
Networks are built on torch's meta device, without weights, and given images of one size after another. A network whose
construction does not depend on the size takes every size from a least one on. That one is found by halving the
interval, and some sizes above it are tried. The others are tried with every size.
"""

import sys
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from trainer.networks.catalogue import REFUSALS, dry_pass, names, options, without_classifier
from trainer.networks.families import family_of
from trainer.networks.limits import LARGEST, unknown
from trainer.networks.table import NETWORKS

REGNETS = ("regnet_x_", "regnet_y_")  # prefixes of equal length
ABOVE = (1, 2, 3, 5, 8, 13, 31, 64, 127)  # pixels above a least size that are tried too
FILE = Path(__file__).with_name("table.py")
HEADER = '''"""Which image sizes each network takes, and from which size on Grad-CAM maps of it can differ.

Written by ``python -m trainer.networks.tabulate`` (``make networks``); do not edit. Sizes are height and width, in
pixels. The second value is None for networks that are not of a known family (`families`): they can have neither
attention maps nor cosine heads.
"""

NETWORKS: dict[str, tuple[tuple[range, ...], int | None]] = {
'''

Limits = tuple[tuple[range, ...], int | None]  # a row of the table


class Trial:
    """A network without weights that is given images of any size."""

    def __init__(self, name: str, *, channels: int = 3) -> None:
        """Build the network, unless it has to be built for each size anew."""
        self.name, self._channels = alike(name), channels
        # RegNets compute their widths from values of tensors, and a meta tensor has none.
        self._device = torch.device("cpu" if name.startswith(REGNETS) else "meta")
        self.built_for_a_size = options(name, 1) != options(name, 2)
        self._network = None if self.built_for_a_size else self._built(LARGEST)

    def takes(self, image_size: int) -> bool:
        """Whether the network gives one feature vector an image of that height and width."""
        return self._pass(image_size) is not None

    def attends(self, image_size: int) -> bool:
        """Whether the last stage of a network of a known family has more than one position."""
        maps = self._pass(image_size)
        return maps is not None and maps[-2:].numel() > 1

    def _built(self, image_size: int) -> nn.Module:
        with self._device:
            return without_classifier(self.name, channels=self._channels, image_size=image_size)[0]

    def _pass(self, image_size: int) -> torch.Size | None:
        """Shape of the last stage's maps, empty for a network of no known family; None if the images are refused."""
        images = torch.zeros(1, self._channels, image_size, image_size, device=self._device)
        try:
            features, maps = dry_pass(self._network or self._built(image_size), images, family_of(self.name))
        except REFUSALS:
            return None
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            return None
        return torch.Size() if maps is None else maps


def alike(name: str) -> str:
    """The network that is tried for this one: itself, or the smallest RegNet of its kind.

    RegNets differ in width and depth, not in the images they take. The largest needs gigabytes.
    """
    return f"{name[: len(REGNETS[0])]}400mf" if name.startswith(REGNETS) else name


@cache
def measure(name: str) -> Limits:
    """A network's row of the table; raises ValueError if a size above the least one is refused."""
    trial = Trial(name)
    if trial.built_for_a_size:
        return progressions([size for size in range(1, LARGEST + 1) if trial.takes(size)]), None
    least = bisect_left(range(LARGEST + 1), True, lo=1, key=trial.takes)
    attention = bisect_left(range(LARGEST + 1), True, lo=least, key=trial.attends) if family_of(name) else None
    for more in ABOVE:
        if not trial.takes(least + more) or (attention and not trial.attends(attention + more)):
            raise ValueError(f"{name}: {more} pixels more than the least size are refused, so it needs its own rule")
    return (range(least, LARGEST + 1),), attention


def progressions(sizes: Sequence[int]) -> tuple[range, ...]:
    """Increasing sizes as one range if they are evenly spaced, else as a range for each run of consecutive ones."""
    if len(sizes) > 1 and len({after - before for before, after in pairwise(sizes)}) == 1:
        return (range(sizes[0], sizes[-1] + 1, sizes[1] - sizes[0]),)
    starts = [size for size in sizes if size - 1 not in sizes]
    ends = [size for size in sizes if size + 1 not in sizes]
    return tuple(range(start, end + 1) for start, end in zip(starts, ends, strict=True))


def rendered(rows: Mapping[str, Limits]) -> str:
    """The table's file."""
    lines = (f'    "{name}": {row},\n' for name, row in rows.items())
    return f"{HEADER}{''.join(lines)}}}\n"


def rows(chosen: Collection[str] = ()) -> dict[str, Limits]:
    """The table with ``chosen`` networks measured anew, every network if none is chosen; raises ValueError."""
    known = names()
    for name in chosen:
        if name not in known:
            raise unknown(name, known)
    kept = {name: NETWORKS[name] for name in NETWORKS if chosen and name not in chosen}
    return {name: kept[name] if name in kept else measure(alike(name)) for name in known}


def main(chosen: Collection[str]) -> None:
    """Measure networks and write the table."""
    torch.set_num_threads(1)
    FILE.write_text(rendered(rows(chosen)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
