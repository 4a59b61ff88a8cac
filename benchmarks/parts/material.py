"""What an increment starts from, made up: a network that has seen nothing yet, and images of noise."""

import torch

from losses import strategies
from trainer.learning.data import ImageSet
from trainer.learning.increment import Architecture
from trainer.learning.learned import Learned
from trainer.networks import EvaluationTransform, build

CALIBRATION = (30, 16)  # minibatches, images in each


def noise(count: int, *, architecture: Architecture, first_class: int, classes: int) -> ImageSet:
    """Images of as many classes from ``first_class`` on, one after the other."""
    side = architecture.image_size
    return ImageSet(
        torch.randint(256, (count, architecture.channels, side, side), dtype=torch.uint8),
        targets=first_class + torch.arange(count) % classes,
        ids=tuple(map(str, range(count))),
    )


@torch.no_grad()
def untaught(strategy: str, *, architecture: Architecture, task_sizes: tuple[int, ...]) -> Learned:
    """A version of random weights whose batch statistics are those of noise, so that its outputs are of usual size."""
    side, channels = architecture.image_size, architecture.channels
    network = build(
        architecture.network,
        channels=channels,
        image_size=side,
        task_sizes=task_sizes,
        head_kind=strategies.get(strategy).head_beside(None),
    )
    minibatches, images = CALIBRATION
    for _ in range(minibatches):
        network(torch.randn(images, channels, side, side))
    transform = EvaluationTransform(side, channels, mean=(0.5,) * channels, std=(0.29,) * channels)
    return Learned(network.eval(), transform)
