"""Verification of a version's files: they are loaded before the version is published."""

from pathlib import Path

import torch

from storage.errors import Invalid
from trainer.networks import LoadedVersion, load_version

IMAGES = 2  # predicted for the check


def check_written(folder: Path) -> None:
    """Load the version in a folder and predict with it; an error of either is raised.

    Raises `Invalid` if the version loads but computes no probabilities: another attempt would not change that.
    """
    version = load_version(folder)
    probabilities = version.probabilities_of(_pixels(version))
    if probabilities.shape != (IMAGES, len(version.labels)) or not bool(probabilities.isfinite().all()):
        raise Invalid(
            "The trained network computes no probabilities (its weights are out of range), so it is not published: "
            "try a lower learning rate."
        )


def _pixels(version: LoadedVersion) -> torch.Tensor:
    """Images of varying pixels, uint8 [n, channels, size, size]."""
    transform = version.transform
    shape = (IMAGES, transform.channels, transform.image_size, transform.image_size)
    count = shape[0] * shape[1] * shape[2] * shape[3]
    return torch.arange(count).mul_(37).remainder_(256).to(torch.uint8).view(shape)
