"""Images in memory as the training loop wants them: one uint8 tensor, its targets, and who each image is."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from storage.domain import Image
from trainer.networks.transforms import decode, pixels


@dataclass(frozen=True)
class ImageSet:
    """Decoded images of known targets."""

    pixels: Tensor  # uint8 [images, channels, size, size]
    targets: Tensor  # int64 [images], class index in the order of the logits
    ids: tuple[str, ...]  # of the stored images

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.ids)

    def __add__(self, other: "ImageSet") -> "ImageSet":
        """Both sets, this one first."""
        return ImageSet(
            pixels=torch.cat([self.pixels, other.pixels]),
            targets=torch.cat([self.targets, other.targets]),
            ids=self.ids + other.ids,
        )

    def select(self, positions: Tensor) -> "ImageSet":
        """The images at ``positions`` (int64 [chosen]), in that order; their pixels are copied."""
        return ImageSet(
            pixels=self.pixels[positions],
            targets=self.targets[positions],
            ids=tuple(self.ids[position] for position in positions.tolist()),
        )


def positions_by_class(targets: Tensor) -> dict[int, Tensor]:
    """Where the images of each class present stand: int64 positions, rising, by class index, rising."""
    classes, counts = torch.unique(targets, return_counts=True)
    grouped = torch.split(targets.argsort(stable=True), counts.tolist())
    return dict(zip(classes.tolist(), grouped, strict=True))


def load(
    stored: Sequence[Image],
    *,
    read: Callable[[str], bytes],
    classes: Mapping[str, int],
    image_size: int,
    channels: int,
    max_pixels: int,
    threads: int,
    advanced: Callable[[int], None] = lambda _done: None,
) -> ImageSet:
    """Read, decode and resize stored images, several at a time; ``read`` gives the bytes of a digest.

    The order is that of ``stored``, whatever the number of threads.
    """

    def one(image: Image) -> Tensor:
        return pixels(decode(read(image.digest), channels=channels, max_pixels=max_pixels), image_size)

    resident = torch.empty(len(stored), channels, image_size, image_size, dtype=torch.uint8)
    with ThreadPoolExecutor(threads) as pool:
        for position, decoded in enumerate(pool.map(one, stored)):
            resident[position] = decoded
            advanced(position + 1)
    targets = torch.tensor([classes[image.label] for image in stored], dtype=torch.int64)
    return ImageSet(pixels=resident, targets=targets, ids=tuple(image.id for image in stored))


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over uint8 [images, channels, h, w], on the scale 0…1.

    Counted per value, so that memory does not grow with the number of images; a flat channel gets the deviation of
    one grey level, which keeps the normalised image finite.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(pixels.shape[1]):
        share = torch.bincount(pixels[:, channel].flatten(), minlength=256).double()
        share /= share.sum()
        mean = float((share * levels).sum())
        variance = float((share * (levels - mean) ** 2).sum())
        means.append(round(mean, 6))
        deviations.append(round(max(variance**0.5, 1 / 255), 6))
    return tuple(means), tuple(deviations)
