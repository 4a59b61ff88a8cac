"""torchvision's collections of small images as tensors; downloaded where there is a network."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from storage.errors import Invalid
from trainer.experiments.data.matfiles import read_mat

NETWORK_TIMEOUT_SECONDS = 30.0  # torchvision sets none, and a server that never answers would block

Side = tuple[Tensor, Tensor]  # pixels uint8 [images, channels, h, w], targets int64 [images]


@dataclass(frozen=True)
class Collection:
    """torchvision's name of a collection, and the files that it reads if nothing can be downloaded."""

    name: str
    files: tuple[str, ...]


_IDX = tuple(f"{side}-{kind}-ubyte.gz" for side in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
COLLECTIONS = {
    "cifar10": Collection("CIFAR10", ("cifar-10-python.tar.gz",)),
    "cifar100": Collection("CIFAR100", ("cifar-100-python.tar.gz",)),
    "svhn": Collection("SVHN", ("train_32x32.mat", "test_32x32.mat")),
    "mnist": Collection("MNIST", tuple(f"MNIST/raw/{file}" for file in _IDX)),
    "fashionmnist": Collection("FashionMNIST", tuple(f"FashionMNIST/raw/{file}" for file in _IDX)),
}


def read_collection(name: str, folder: Path) -> tuple[tuple[str, ...], Side, Side]:
    """Labels, training side and test side; raises `Invalid` naming folder and files where there is no network."""
    collection = COLLECTIONS[name]
    try:
        with _patience():
            return _svhn(folder) if name == "svhn" else _torchvision(collection.name, folder)
    except (OSError, RuntimeError) as error:  # torchvision raises either
        reason = " ".join(str(error).split())
        raise Invalid(
            f"{name} is not complete in {folder} and cannot be downloaded ({reason}): "
            f"put there, as published, {', '.join(collection.files)}, or name the folder that has them with --folder"
        ) from error


def _torchvision(name: str, folder: Path) -> tuple[tuple[str, ...], Side, Side]:
    import torchvision

    folder.mkdir(parents=True, exist_ok=True)
    kind = getattr(torchvision.datasets, name)
    train, test = (kind(str(folder), train=side, download=True) for side in (True, False))
    return tuple(map(str, train.classes)), as_side(train.data, train.targets), as_side(test.data, test.targets)


def as_side(data: object, targets: object) -> Side:
    """Tensors of what torchvision reads: for CIFAR arrays [n, h, w, 3] and lists, for MNIST tensors [n, h, w]."""
    raw = torch.as_tensor(data)
    raw = raw[:, None] if raw.ndim == 3 else raw.permute(0, 3, 1, 2)
    return raw.contiguous(), torch.as_tensor(targets, dtype=torch.int64)


def _svhn(folder: Path) -> tuple[tuple[str, ...], Side, Side]:
    """SVHN without torchvision's reader, which needs SciPy; URLs and checksums are torchvision's."""
    from torchvision.datasets import SVHN
    from torchvision.datasets.utils import download_url

    folder.mkdir(parents=True, exist_ok=True)
    sides = []
    for side in ("train", "test"):
        url, file, md5 = SVHN.split_list[side]
        download_url(url, str(folder), file, md5)
        arrays = read_mat(folder / file)
        raw = torch.from_numpy(np.ascontiguousarray(arrays["X"].transpose(3, 2, 0, 1)))
        digits = arrays["y"].astype(np.int64).reshape(-1) % 10  # the files say 10 for the digit 0
        sides.append((raw, torch.from_numpy(digits)))
    return tuple(map(str, range(10))), sides[0], sides[1]


@contextmanager
def _patience() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
