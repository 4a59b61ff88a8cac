"""Networks and images for the tests of export."""

import torch
from torch import Tensor

from trainer.networks import EvaluationTransform, IncrementalNetwork, build

SIZE = 16


def network(
    name: str = "resnet32",
    *,
    channels: int = 3,
    size: int = SIZE,
    head: str = "linear",
    tasks: tuple[int, ...] = (3, 2),
) -> IncrementalNetwork:
    """A network in evaluation mode whose running statistics are those of some images, so its outputs are moderate."""
    torch.manual_seed(4)
    made = build(name, channels=channels, image_size=size, task_sizes=tasks, head_kind=head)  # type: ignore[arg-type]
    with torch.no_grad():
        made(torch.randn(8, channels, size, size))
    return made.eval()


def transform(*, channels: int = 3, size: int = SIZE, deviation: float = 0.2) -> EvaluationTransform:
    """Statistics that differ by channel."""
    return EvaluationTransform(size, channels, (0.3, 0.5, 0.4)[:channels], (deviation, 0.25, 0.3)[:channels])


def pixels(images: int, *, channels: int = 3, size: int = SIZE) -> Tensor:
    """Images of noise, uint8 [images, channels, size, size]."""
    generator = torch.Generator().manual_seed(images)
    return torch.randint(0, 256, (images, channels, size, size), dtype=torch.uint8, generator=generator)
