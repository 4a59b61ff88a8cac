"""Random changes of training images that keep their class; a whole minibatch at a time, on its device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.recipes import AugmentationKind


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Shifts and mirrors uint8 images [batch, channels, image_size, image_size].

    ``crop`` shifts by up to image_size // 8 pixels each way (4 of 32: He et al. 2016 §4.2), ``crop-flip`` also mirrors
    half of the images left to right. ``auto`` is crop-flip for colour images and crop for grey ones, since a mirrored
    digit or page is a different one or none. All randomness comes from the generator, so that resuming needs only its
    state.
    """

    kind: AugmentationKind
    image_size: int
    channels: int
    generator: torch.Generator

    def __call__(self, images: Tensor) -> Tensor:
        """A new minibatch, or the same one for ``none``; raises ValueError for images of another type or shape."""
        expected = (self.channels, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or images.shape[1:] != expected:
            raise ValueError(
                f"expected uint8 images [batch, {', '.join(map(str, expected))}], "
                f"got {images.dtype} {list(images.shape)}"
            )
        if self.kind == "none":
            return images
        flips = self.kind == "crop-flip" or (self.kind == "auto" and self.channels > 1)
        batch, device = len(images), images.device
        rows = self._shifted(batch).to(device)
        columns = self._shifted(batch).to(device)
        if flips:
            mirrored = self._draw(batch, 2).bool().to(device)
            columns = torch.where(mirrored, columns.flip(1), columns)
        which = torch.arange(batch, device=device)[:, None, None]
        # All channels of a position are taken at once; the result is in channels-last memory.
        return images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _shifted(self, batch: int) -> Tensor:
        """[batch, image_size] source positions along one axis.

        Positions beyond the edge are reflected: zeros would add black bars, which a white page or a bright photograph
        does not have.
        """
        reach, last = self.image_size // 8, self.image_size - 1
        positions = (
            torch.arange(self.image_size, device=self.generator.device) + self._draw(batch, 2 * reach + 1) - reach
        )
        return last - (last - positions.abs()).abs()

    def _draw(self, batch: int, values: int) -> Tensor:
        """[batch, 1] uniform whole numbers below ``values``."""
        return torch.randint(values, (batch, 1), generator=self.generator, device=self.generator.device)
