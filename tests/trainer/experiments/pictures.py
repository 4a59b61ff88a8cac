"""Pictures of 8 × 8 pixels for experiments: a pattern of each class's own under noise; as tensors and as files."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from trainer.experiments.data.tasks import Task
from trainer.learning.data import ImageSet

SIZE = 8


def pixels_of(kind: int, count: int, *, seed: int = 0, size: int = SIZE) -> Tensor:
    """uint8 [count, 3, size, size] of one class."""
    pattern = torch.randint(30, 200, (3, size, size), generator=torch.Generator().manual_seed(kind))
    noise = torch.Generator().manual_seed(1000 * seed + kind + 1)
    return (pattern + torch.randint(0, 50, (count, 3, size, size), generator=noise)).to(torch.uint8)


def tasks_of(*sizes: int, train: int = 6, test: int = 4) -> tuple[Task, ...]:
    """Tasks of so many classes, with images as tensors."""
    tasks, known = [], 0
    for size in sizes:
        kinds = range(known, known + size)
        labels = tuple(f"class {kind:02d}" for kind in kinds)
        tasks.append(Task(labels, _images(kinds, train, seed=1), _images(kinds, test, seed=2)))
        known += size
    return tuple(tasks)


def _images(kinds: Sequence[int], each: int, *, seed: int) -> ImageSet:
    return ImageSet(
        torch.cat([pixels_of(kind, each, seed=seed) for kind in kinds]),
        targets=torch.tensor([kind for kind in kinds for _ in range(each)]),
        ids=tuple(f"{seed}/{kind}/{number}" for kind in kinds for number in range(each)),
    )


def png(kind: int, number: int, *, size: int = SIZE) -> bytes:
    """One picture as a file."""
    picture = Image.fromarray(pixels_of(kind, 1, seed=number, size=size)[0].permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def files_of(*kinds: int, each: int, side: str = "", first: int = 0) -> dict[str, bytes]:
    """Files in ImageFolder layout by name."""
    return {
        f"{side}class-{kind}/{number}.png": png(kind, number) for kind in kinds for number in range(first, first + each)
    }


def write_tree(folder: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def write_zip(path: Path, files: dict[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)
