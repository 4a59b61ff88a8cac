"""Small pictures of classes that a network tells apart in seconds: stripes of a class's own colour and direction."""

import io
import math
import random
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

SIZE = 16  # pixels
QUICK: dict[str, object] = {"epochs": 6, "minibatch": 16, "learning_rate": 0.05, "augmentation": "none"}
LABELS = (
    "anise",
    "basil",
    "chive",
    "dill",
    "fennel",
    "ginger",
    "hyssop",
    "juniper",
    "lovage",
    "mint",
    "nutmeg",
    "oregano",
)


@cache
def picture(label: str, number: int) -> bytes:
    """A PNG of a class; the number makes it one of its own."""
    position = LABELS.index(label)
    chance = random.Random(f"{label} {number}")
    colour = [110 + 110 * math.cos(2 * math.pi * (position / len(LABELS) + third / 3)) for third in range(3)]
    angle, phase = math.pi * (position % 4) / 4, chance.uniform(0, 1)
    image = Image.new("RGB", (SIZE, SIZE))
    for y in range(SIZE):
        for x in range(SIZE):
            wave = math.sin(x * math.cos(angle) + y * math.sin(angle) + phase) * 35 + chance.uniform(-25, 25)
            image.putpixel((x, y), tuple(max(0, min(255, round(level + wave))) for level in colour))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_zip(path: Path, labels: Sequence[str], *, images: int = 30, extra: Mapping[str, bytes] | None = None) -> Path:
    """An archive of some classes in ImageFolder layout, with further files by name."""
    with zipfile.ZipFile(path, "w") as archive:
        for label in labels:
            for number in range(images):
                archive.writestr(f"{label}/{number}.png", picture(label, number))
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return path


def unseen(label: str, count: int = 10) -> list[bytes]:
    """Pictures of a class that are in no archive."""
    return [picture(label, 10_000 + number) for number in range(count)]
