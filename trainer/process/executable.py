"""The file ``network.onnx`` of a new version, compared with its network on evaluation images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from storage.errors import Invalid
from trainer.export import Disagreement, NotExportable, write_executable
from trainer.learning.data import ImageSet
from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.networks.manifest import EXECUTABLE

COMPARED = 256  # evaluation images at most


def add_executable(
    folder: Path, network: IncrementalNetwork, transform: EvaluationTransform, measured: ImageSet
) -> dict[str, Any]:
    """Write it into a version's folder; the record of it for version.json, with an ``error`` if there is no such file.

    Raises `Invalid` if the graph computes something else than the network: another attempt would not change that.
    """
    try:
        return write_executable(folder / EXECUTABLE, network, transform, pixels=sample(measured))
    except NotExportable as error:
        return {"error": str(error)}
    except Disagreement as error:
        raise Invalid(
            f"The version is not published, because its ONNX graph does not compute what the trained network "
            f"{network.name} computes: {error}. Report this; until it is corrected, train another network."
        ) from error


def sample(images: ImageSet) -> Tensor:
    """Copies of at most `COMPARED` images, uint8 [images, channels, size, size], evenly spread over a set.

    They are shuffled, always in the same way: a comparison that ends early has then seen images of all classes.
    """
    return images.select(torch.tensor(spread(len(images)), dtype=torch.int64)).pixels


def spread(count: int, *, most: int = COMPARED) -> list[int]:
    """Positions of at most ``most`` of so many images, as in `sample`."""
    positions = torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()
    shuffled = torch.randperm(len(positions), generator=torch.Generator().manual_seed(0))
    return positions[shuffled].tolist()
