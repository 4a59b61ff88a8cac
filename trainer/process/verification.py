"""The files of a version are read back before anybody publishes them."""

from pathlib import Path

import torch

from storage.errors import Invalid
from trainer.networks import LoadedVersion, load_version

IMAGES = 2  # that a version is asked for


def check_written(folder: Path) -> None:
    """Load the version in a folder and predict by it; raises what keeps it from being served.

    `Invalid` where it loads and computes no probabilities, which another attempt would not mend.
    """
    version = load_version(folder)
    probabilities = version.probabilities_of(_pixels(version))
    if probabilities.shape != (IMAGES, len(version.labels)) or not bool(probabilities.isfinite().all()):
        raise Invalid(
            "The trained network computes no probabilities (its weights are out of range), so it is not published: "
            "try a lower learning rate."
        )


def _pixels(version: LoadedVersion) -> torch.Tensor:
    """Images that are no constant, uint8 [n, channels, size, size]."""
    transform = version.transform
    shape = (IMAGES, transform.channels, transform.image_size, transform.image_size)
    count = shape[0] * shape[1] * shape[2] * shape[3]
    return torch.arange(count).mul_(37).remainder_(256).to(torch.uint8).view(shape)
