"""Archives to post: noise, and parts of others."""

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIDE = 32  # pixels


def noise(file: Path, labels: Sequence[str], *, train: int, test: int) -> Path:
    """A zip of 32×32 JPEGs of nothing, so many to train and to test with in each class; all differ."""
    with zipfile.ZipFile(file, "w") as opened:
        for label in labels:
            for side, count in (("train", train), ("test", test)):
                for number in range(count):
                    opened.writestr(f"{side}/{label}/{number}.jpg", noise_image())
    return file


def noise_image() -> bytes:
    """A 32×32 JPEG of nothing."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), os.urandom(SIDE * SIDE * 3)).save(buffer, "JPEG")
    return buffer.getvalue()


def labels_in(archive: Path) -> list[str]:
    """The classes of a zip laid out as side/class/image, sorted."""
    with zipfile.ZipFile(archive) as opened:
        return sorted({name.split("/")[1] for name in opened.namelist() if name.count("/") == 2})


def extract(archive: Path, labels: Sequence[str], file: Path) -> Path:
    """A zip of some of an archive's classes."""
    with zipfile.ZipFile(archive) as opened, zipfile.ZipFile(file, "w") as written:
        for name in opened.namelist():
            if name.count("/") == 2 and name.split("/")[1] in labels and not name.endswith("/"):
                written.writestr(name, opened.read(name))
    return file
