"""The minibatches of an epoch: drawn, augmented and normalised, one after another, on the training device."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.learning.augmentation import Augmentation
from trainer.learning.data import ImageSet
from trainer.learning.sampling import Settled, epoch_order
from trainer.learning.seeds import Seeds
from trainer.networks import EvaluationTransform
from trainer.recipes import Recipe

RESIDENT_SHARE = 0.5  # of a GPU's free memory that pixels may take; the rest is for the networks
_COPIED = 4096  # images on their way to a GPU at a time


class Extent(NamedTuple):
    """The largest length of a phase."""

    epochs: int
    steps: int  # of each epoch


def extent(images: int, recipe: Recipe) -> Extent:
    """The extent of a phase over this number of images, with a recipe.

    Minibatches are of nearly equal size, with at least two images: batch normalisation cannot average over one.
    """
    steps = max(1, min(math.ceil(images / recipe.minibatch), images // 2))
    return Extent(epochs=max(recipe.epochs, math.ceil(recipe.least_steps / steps)), steps=steps)


class Minibatches:
    """Images in minibatches, epoch by epoch; all randomness comes from two generators, whose state a checkpoint has."""

    def __init__(
        self,
        images: ImageSet,
        *,
        transform: EvaluationTransform,
        recipe: Recipe,
        seeds: Seeds,
        sampling: Settled,
        device: torch.device,
        phase: int = 0,
    ) -> None:
        """Copy the pixels to a GPU if they fit; with a CPU they stay where they are, in memory or in a file."""
        self._images = images
        self._sampling = sampling
        self._device = device
        self._pool, self._rows = _resident(images, device)
        self._targets = images.targets.to(device)
        self._transform = transform
        self._shuffling = torch.Generator().manual_seed(seeds.of("order", phase=phase))
        self._changing = torch.Generator(device).manual_seed(seeds.of("augmentation", phase=phase))
        self._augment = Augmentation(
            recipe.augmentation,
            image_size=transform.image_size,
            channels=transform.channels,
            generator=self._changing,
        )
        self.epochs, self.steps = extent(len(images), recipe)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Minibatches of one epoch: normalised images [batch, channels, size, size] and targets int64 [batch]."""
        order = epoch_order(self._sampling, self._images.targets, generator=self._shuffling)
        rows = self._rows[order].to(self._pool.device)
        positions = order.to(self._device)
        for chosen, places in zip(positions.tensor_split(self.steps), rows.tensor_split(self.steps), strict=True):
            pixels = self._pool[places].to(self._device)
            yield self._transform.normalise(self._augment(pixels)), self._targets[chosen]

    def state(self) -> dict[str, Tensor]:
        """State of the generators, between two epochs."""
        return {"shuffling": self._shuffling.get_state(), "changing": self._changing.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Set the generators to a state."""
        self._shuffling.set_state(state["shuffling"])
        self._changing.set_state(state["changing"])


def _resident(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """A pool with these images, on the GPU if they fit, else where they are; and their rows, int64 on the CPU."""
    if device.type != "cuda":
        return images.pool, images.rows
    free, _total = torch.cuda.mem_get_info(device)
    if len(images) * images.pool[0].numel() > RESIDENT_SHARE * free:
        return images.pool, images.rows
    pool = torch.empty((len(images), *images.shape), dtype=torch.uint8, device=device)
    pool = pool.to(memory_format=torch.channels_last)
    for start, pixels in zip(range(0, len(images), _COPIED), images.minibatches(_COPIED), strict=True):
        pool[start : start + len(pixels)] = pixels.to(device)
    return pool, torch.arange(len(images))
