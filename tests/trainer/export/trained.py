"""A network that has learned some patterns, and images to quantise and to compare it with."""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tests.patterns import LABELS, SIZE, picture
from trainer.export import graph
from trainer.learning.data import ImageSet
from trainer.networks import EvaluationTransform, IncrementalNetwork, build

CLASSES = 4
_PICTURES, _EPOCHS = 40, 15
_NOISE = 8.0  # grey levels, of the evaluation images


@dataclass(frozen=True)
class Trained:
    """The network with its graph, and its images."""

    network: IncrementalNetwork
    transform: EvaluationTransform
    learned: ImageSet  # training images
    measured: ImageSet  # evaluation images

    @property
    def content(self) -> bytes:
        """The graph, as a worker writes it."""
        written: bytes = graph.export(self.network, self.transform, by_dynamo=False).SerializeToString()
        return written


@cache
def trained(head: str = "linear") -> Trained:
    """A ResNet-32 after some epochs; to be left as it is."""
    torch.manual_seed(0)
    transform = EvaluationTransform(SIZE, 3, (0.43, 0.43, 0.43), (0.3, 0.3, 0.3))
    network = build("resnet32", channels=3, image_size=SIZE, task_sizes=(2, 2), head_kind=head)  # type: ignore[arg-type]
    images = _pictures(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(images)).split(16):
            shown = images.select(rows)
            loss = nn.functional.cross_entropy(network(transform.normalise(shown.pixels)), shown.targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return Trained(network.eval(), transform, images, _noisy(_pictures(1000)))


def minibatches(images: ImageSet) -> list[tuple[Tensor, Tensor]]:
    """Pixels and targets, 16 images at a time."""
    return list(zip(images.minibatches(16), images.targets.split(16), strict=True))


def _pictures(first: int) -> ImageSet:
    places = [(label, first + number) for label in range(CLASSES) for number in range(_PICTURES)]
    arrays = [np.asarray(Image.open(io.BytesIO(picture(LABELS[label], number)))) for label, number in places]
    pool = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(pool, torch.tensor([label for label, _ in places]), tuple(map(str, places)))


def _noisy(images: ImageSet) -> ImageSet:
    """Ten copies of each image, with noise of their own."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(len(images)).repeat(10)
    values = images.pixels[rows].float()
    noise = torch.randn(values.shape, generator=generator) * _NOISE
    pool = (values + noise).round().clamp(0, 255).to(torch.uint8)
    return ImageSet(pool, images.targets[rows], tuple(f"{row} {place}" for place, row in enumerate(rows.tolist())))
