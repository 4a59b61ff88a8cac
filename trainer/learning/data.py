"""Images in memory as the training loop needs them: one uint8 tensor, the targets, and the ids of the images."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_COUNTED = 256  # images whose grey levels are counted at a time
_ALL = torch.empty(0, dtype=torch.int64)  # stands for every row of a pool


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with targets, as rows of a pool of pixels.

    Several sets can share a pool, and a pool may be a mapped file. Selecting images of a set and joining sets of one
    pool copies no pixels.
    """

    pool: Tensor  # uint8 [pooled, channels, size, size]
    targets: Tensor  # int64 [images], class index in the order of the logits
    ids: tuple[str, ...]  # of the stored images
    rows: Tensor = _ALL  # int64 [images], index of each image in the pool

    def __post_init__(self) -> None:
        """Use the whole pool if no rows are given; raises ValueError if rows, targets and ids differ in number."""
        if self.rows is _ALL:
            object.__setattr__(self, "rows", torch.arange(len(self.pool)))
        if not len(self.rows) == len(self.targets) == len(self.ids):
            raise ValueError(f"{len(self.rows)} images, {len(self.targets)} targets, {len(self.ids)} ids")

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        channels, height, width = self.pool.shape[1:]
        return channels, height, width

    @property
    def pixels(self) -> Tensor:
        """A copy of all pixels, uint8 [images, channels, size, size]."""
        return self.pool[self.rows]

    def minibatches(self, size: int) -> Iterator[Tensor]:
        """Copies of the pixels, in order, ``size`` images at a time; the last minibatch may be smaller."""
        for rows in torch.split(self.rows, size):
            yield self.pool[rows]

    def __add__(self, other: "ImageSet") -> "ImageSet":
        """Both sets, this one first; the pixels are copied unless they are in one pool."""
        together = {"targets": torch.cat([self.targets, other.targets]), "ids": self.ids + other.ids}
        if self.pool is other.pool:
            return ImageSet(self.pool, rows=torch.cat([self.rows, other.rows]), **together)  # type: ignore[arg-type]
        return ImageSet(torch.cat([self.pixels, other.pixels]), **together)  # type: ignore[arg-type]

    def counts(self, classes: int) -> tuple[int, ...]:
        """Number of images of each class, 0 … ``classes`` − 1."""
        return tuple(self.targets.bincount(minlength=classes).tolist())

    def select(self, positions: Tensor) -> "ImageSet":
        """The images at ``positions`` (int64 [chosen]), in that order."""
        return ImageSet(
            self.pool,
            targets=self.targets[positions],
            ids=tuple(self.ids[position] for position in positions.tolist()),
            rows=self.rows[positions],
        )


def positions_by_class(targets: Tensor) -> dict[int, Tensor]:
    """Positions of the images of each class that occurs: int64, ascending, by class index, ascending."""
    classes, counts = torch.unique(targets, return_counts=True)
    grouped = torch.split(targets.argsort(stable=True), counts.tolist())
    return dict(zip(classes.tolist(), grouped, strict=True))


def channel_statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on the scale 0…1.

    Values are counted per grey level, minibatch by minibatch. So memory does not grow with the number of images, and
    the result does not depend on their order. A flat channel gets the deviation of one grey level, which keeps the
    normalised image finite.
    """
    channels = images.shape[0]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for minibatch in images.minibatches(_COUNTED):
        for channel in range(channels):
            counts[channel] += torch.bincount(minibatch[:, channel].flatten(), minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(1, keepdim=True)
    means = (shares * levels).sum(1)
    deviations = ((shares * (levels - means[:, None]) ** 2).sum(1)).sqrt().clamp_min(1 / 255)
    return _rounded(means), _rounded(deviations)


def _rounded(statistics: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in statistics.tolist())
