"""The images of the demonstration: scikit-learn's handwritten digits, or your own, in steps of a few classes."""

import hashlib
import statistics
import sys
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from api.client.connection import ClientError
from api.client.packing import Folder, source_of
from storage.archives.listing import ArchiveLimits, survey
from storage.errors import AccreteError

_SIZES = (16, 32)  # pixels; for larger ones ResNet-32 is too slow for a demonstration
_SAMPLED = 50  # images whose size and colours are looked at


@dataclass(frozen=True, slots=True)
class Picture:
    """One labelled image file; ``split`` is None where the folder has no splits."""

    path: Path
    label: str
    split: str | None


def write_digits(folder: Path) -> Path:
    """Save scikit-learn's 1,797 digits (8×8 pixels, values 0 … 16) as PNG files in a folder for each digit."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        target = folder / str(digit) / f"{number:04}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).round().astype("uint8")).save(target)
    return folder


def read_folder(folder: Path) -> list[Picture]:
    """The images of a folder, by the rules that the service applies to an archive; ValueError if it would refuse."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    try:
        source = source_of(folder)
        assert isinstance(source, Folder)
        members = survey(source.entries(), limits=ArchiveLimits()).members
    except (ClientError, AccreteError) as refused:
        raise ValueError(f"{folder}: {refused}") from refused
    return [Picture(path=source.files[one.position].path, label=one.label, split=one.split) for one in members]


def split_classes(pictures: Sequence[Picture], classes_per_step: int) -> list[list[str]]:
    """The classes of each step; a single class at the end joins the step before.

    Without rehearsal the cross-entropy of a single new class is constant: nothing can be learned from it. Raises
    ValueError for fewer than two classes.
    """
    labels = sorted({picture.label for picture in pictures})
    if len(labels) < 2:
        raise ValueError(f"expected images of at least two classes, one folder for each; found {len(labels)}")
    steps = [labels[start : start + classes_per_step] for start in range(0, len(labels), classes_per_step)]
    if len(steps[-1]) == 1 and len(steps) > 1:
        steps[-2:] = [steps[-2] + steps[-1]]
    return steps


def hold_out(pictures: Sequence[Picture], *, per_class: int) -> tuple[list[Picture], list[Picture]]:
    """The images to upload, and a few of each class to hold out: the service sees them only to predict them.

    They are at most a quarter of a class's test images, or of all its images if it has no test images. The choice
    depends on file names only, so it is the same every time.
    """
    by_class: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_class[picture.label].append(picture)
    held: list[Picture] = []
    for label in sorted(by_class):
        candidates = [picture for picture in by_class[label] if picture.split == "test"] or by_class[label]
        candidates.sort(key=lambda picture: hashlib.sha256(picture.path.name.encode()).digest())
        held += candidates[: min(per_class, len(candidates) // 4)]
    chosen = set(held)
    return [picture for picture in pictures if picture not in chosen], held


def write_archive(pictures: Sequence[Picture], target: Path) -> Path:
    """A zip in ImageFolder layout, ready to be uploaded."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        taken = set[str]()
        for number, picture in enumerate(pictures):
            parts = [picture.split, picture.label, picture.path.name]
            name = "/".join(part for part in parts if part)
            if name in taken:  # files of two folders below that of the class have one name
                name = f"{name.removesuffix(picture.path.name)}{number}-{picture.path.name}"
            taken.add(name)
            archive.write(picture.path, name)
    return target


def fitting_shape(pictures: Sequence[Picture]) -> tuple[int, int]:
    """Image size in pixels and channels for a model of these images, from a sample of them."""
    sides, grey = [], True
    for picture in pictures[:: max(1, len(pictures) // _SAMPLED)]:
        with Image.open(picture.path) as image:
            sides.append(min(image.size))
            grey = grey and image.mode in {"1", "L", "I;16"}
    size = next((size for size in _SIZES if statistics.median(sides) <= size), _SIZES[-1])
    return size, 1 if grey else 3


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m api.demo.images FOLDER    (saves scikit-learn's handwritten digits there)")
    write_digits(Path(sys.argv[1]))
