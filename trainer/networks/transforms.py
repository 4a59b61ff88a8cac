"""From pixels to network input, the same in training, evaluation and serving."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from trainer.networks.pictures import resized


def pixels(image: Image.Image, image_size: int) -> Tensor:
    """The `resized` image as uint8 [channels, image_size, image_size]."""
    image = resized(image, image_size)
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)  # frombuffer wants writable memory
    return raw.view(image_size, image_size, len(image.getbands())).permute(2, 0, 1).contiguous()


@dataclass(frozen=True, slots=True)
class EvaluationTransform:
    """How pixels become network input; stored with each version, so that serving repeats training exactly."""

    image_size: int  # height and width
    channels: int  # 1 or 3
    mean: tuple[float, ...]  # by channel, of values in 0 … 1
    std: tuple[float, ...]  # by channel, of values in 0 … 1

    def __post_init__(self) -> None:
        """Raise ValueError for statistics of another number of channels or a deviation that is not positive."""
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"{self.channels} channels need as many means and deviations, got {self!r}")
        if min(self.std) <= 0:
            raise ValueError(f"standard deviations are positive, got {self.std}")

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels [batch, channels, h, w] to float32 (value − mean) / std, on the device of the pixels.

        A value is uint8 / 255, or float32 that was divided by 255 before. Raises ValueError for any other pixels.
        """
        if pixels.dtype not in {torch.uint8, torch.float32} or pixels.ndim != 4 or pixels.shape[1] != self.channels:
            raise ValueError(
                f"expected uint8 or float32 pixels [batch, {self.channels}, h, w], got {pixels.dtype} "
                f"{list(pixels.shape)}"
            )
        mean, std = _of_channels(self.mean, pixels.device), _of_channels(self.std, pixels.device)
        values = pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels
        return (values - mean) / std

    def to_json(self) -> dict[str, Any]:
        """The record kept in version.json."""
        return {
            "image_size": self.image_size,
            "channels": self.channels,
            "resize": "bilinear",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "EvaluationTransform":
        """The inverse of `to_json`."""
        if record["resize"] != "bilinear":
            raise ValueError(f"resizing is 'bilinear', got {record['resize']!r}: written by a later release?")
        return cls(
            image_size=int(record["image_size"]),
            channels=int(record["channels"]),
            mean=tuple(map(float, record["mean"])),
            std=tuple(map(float, record["std"])),
        )


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # training could not use a cached inference tensor
def _of_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Float32 [1, channels, 1, 1] on a device; cached, so that a GPU does not wait for a copy at every minibatch."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
