"""What the other servers are given: the same weights and the same decoding, computed as one usually does."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainer.networks import load_version
from trainer.networks.pictures import Form

MINIBATCH = 32
WAIT_SECONDS = 0.005
TOP = 5


class Classifier:
    """A version in a folder, in evaluation mode, channels-last, under inference mode."""

    def __init__(self) -> None:
        """Load what PEER_VERSION names."""
        torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
        self._version = load_version(Path(os.environ["PEER_VERSION"]))
        self._version.network.to(memory_format=torch.channels_last)
        transform = self._version.transform
        self._form = Form(transform.channels, transform.image_size)

    def pixels(self, file: bytes) -> Tensor:
        """uint8 [channels, size, size]."""
        size = self._form.image_size
        row = bytearray(self._form.row(file, max_pixels=50_000_000))
        return torch.frombuffer(row, dtype=torch.uint8).view(size, size, self._form.channels).permute(2, 0, 1)

    @torch.inference_mode()
    def classify(self, pixels: Sequence[Tensor]) -> list[list[tuple[str, float]]]:
        """The best classes of each image."""
        images = self._version.transform.normalise(torch.stack(list(pixels)))
        logits = self._version.network(images.contiguous(memory_format=torch.channels_last))
        return self._version.top_k(logits.softmax(dim=1), TOP)
