"""Labelled images with a test side, wherever they come from: torchvision's collections, image trees, zip archives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from storage.errors import Invalid
from trainer.experiments.data.imagefiles import Found, decoded, find, own_size
from trainer.experiments.data.published import COLLECTIONS, read_collection
from trainer.learning.data import ImageSet, positions_by_class
from trainer.networks.transforms import pixels


@dataclass(frozen=True)
class Limits:
    """How much of the data an experiment takes; None is all of it."""

    classes: int | None = None  # the first so many
    images_per_class: int | None = None  # to train on, the first so many; all test images stay


@dataclass(frozen=True)
class Dataset:
    """Images to train and to test on; targets are positions in ``labels``."""

    labels: tuple[str, ...]  # in the order of the data
    groups: tuple[int, ...]  # by label: the archive it came in, rising from 0
    train: ImageSet
    test: ImageSet

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour)."""
        return self.train.shape[0]

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.train.shape[1]


def load(sources: Sequence[str], *, folder: Path, image_size: int | None, limits: Limits, threads: int) -> Dataset:
    """Read the data that ``sources`` name: one collection of torchvision's, or paths of trees and archives.

    ``folder`` holds the collections. Raises `Invalid` with what to do about it.
    """
    if len(sources) == 1 and sources[0] in COLLECTIONS:
        dataset = _of_collection(sources[0], folder, image_size, limits)
    else:
        for source in sources:
            if not Path(source).exists():
                known = ", ".join(COLLECTIONS)
                raise Invalid(f"--data {source}: no such file or folder, and none of the collections {known}")
        dataset = _of_files(find([Path(source) for source in sources], threads=threads), image_size, limits, threads)
    _check(dataset)
    return dataset


def _of_collection(name: str, folder: Path, image_size: int | None, limits: Limits) -> Dataset:
    labels, *sides = read_collection(name, folder)
    labels = labels[: _classes(limits, len(labels))]
    sets = []
    for side, (raw, targets) in zip(("train", "test"), sides, strict=True):
        chosen = _chosen(targets, len(labels), limits.images_per_class if side == "train" else None)
        sets.append(
            ImageSet(
                _resized(raw[chosen], image_size),
                targets=targets[chosen],
                ids=tuple(f"{side}/{position}" for position in chosen.tolist()),
            )
        )
    return Dataset(labels=labels, groups=(0,) * len(labels), train=sets[0], test=sets[1])


def _of_files(found: Found, image_size: int | None, limits: Limits, threads: int) -> Dataset:
    labels = found.labels[: _classes(limits, len(found.labels))]
    index = {label: position for position, label in enumerate(labels)}
    size = image_size or own_size(found)
    sets = []
    for side, files in (("train", found.train), ("test", found.test)):
        targets = torch.tensor([index.get(file.label, len(labels)) for file in files], dtype=torch.int64)
        chosen = _chosen(targets, len(labels), limits.images_per_class if side == "train" else None)
        kept = [files[position] for position in chosen.tolist()]
        sets.append(
            ImageSet(
                decoded(kept, image_size=size, threads=threads),
                targets=targets[chosen],
                ids=tuple(file.id for file in kept),
            )
        )
    groups = tuple(found.groups[label] for label in labels)
    return Dataset(labels=labels, groups=groups, train=sets[0], test=sets[1])


def _classes(limits: Limits, present: int) -> int:
    if limits.classes is not None and limits.classes > present:
        raise Invalid(f"--classes {limits.classes}: the data has {present} classes")
    return limits.classes or present


def _chosen(targets: Tensor, classes: int, each: int | None) -> Tensor:
    """Positions of the first ``each`` images (None: all) of each of the first ``classes``, in the order of the data."""
    by_class = positions_by_class(targets)
    kept = [positions[:each] for target, positions in by_class.items() if target < classes]
    return torch.cat(kept).sort().values if kept else torch.empty(0, dtype=torch.int64)


def _resized(raw: Tensor, image_size: int | None) -> Tensor:
    """uint8 [images, channels, h, w] as the service would resize these pictures."""
    if image_size is None or raw.shape[2:] == (image_size, image_size):
        return raw
    grey = raw.shape[1] == 1
    pictures = (Image.fromarray((picture[0] if grey else picture.permute(1, 2, 0)).numpy()) for picture in raw)
    return torch.stack([pixels(picture, image_size) for picture in pictures])


def _check(dataset: Dataset) -> None:
    for side, images in (("train", dataset.train), ("test", dataset.test)):
        present = positions_by_class(images.targets)
        if missing := [label for target, label in enumerate(dataset.labels) if target not in present]:
            raise Invalid(f"the data has no {side} images of {', '.join(missing[:10])}")


def regrouped(images: ImageSet, targets: dict[int, int]) -> ImageSet:
    """The images whose target is a key of ``targets``, with its value as new target, in the order of ``images``."""
    known = torch.tensor(sorted(targets), dtype=torch.int64)
    chosen = images.select(torch.isin(images.targets, known).nonzero()[:, 0])
    renamed = torch.tensor([targets[target] for target in chosen.targets.tolist()], dtype=torch.int64)
    return replace(chosen, targets=renamed)
