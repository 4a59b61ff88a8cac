"""Image files in ImageFolder layout, in trees and zips: found, split as the service does, and decoded."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image as Picture
from torch import Tensor

from storage.archives.listing import ArchiveLimits, survey
from storage.archives.names import Entry
from storage.domain import Image, Split
from storage.errors import BatchInvalid, Invalid
from trainer.ingestion.splits import settle
from trainer.networks.pictures import ImageRejected, decode
from trainer.networks.transforms import pixels

COLOURS = 3  # channels: what image files are read as, grey ones too
DEFAULT_SIZE = 32  # pixels, where the files are not all of one square size


@dataclass(frozen=True)
class File:
    """One image file and where its bytes come from."""

    id: str  # path within the data
    label: str
    shape: tuple[int, int]  # width and height, as its header says
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Found:
    """All image files of the data, each content once, training and test side apart."""

    labels: tuple[str, ...]  # archive by archive, sorted within each
    groups: dict[str, int]  # by label: the archive it came in first
    train: tuple[File, ...]  # by id
    test: tuple[File, ...]  # by id


class _Tree:
    """A folder of images."""

    prefix = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return [file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file()]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Archive:
    """A zip; reading it from several threads is safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = f"{path.name}/"
        try:
            self._opened = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise Invalid(f"{path} cannot be read as a zip archive: {error}") from error

    def names(self) -> list[str]:
        return [name for name in self._opened.namelist() if not name.endswith("/")]

    def read(self, name: str) -> bytes:
        return self._opened.read(name)


def find(paths: Sequence[Path], *, threads: int) -> Found:
    """Every image below the paths; a folder of zips stands for its zips, in the order of their names.

    Images are split, and repeated ones dropped, archive by archive, as the service does with each batch. A test image
    of one archive is a training image of none. Raises `Invalid` and `BatchInvalid`.
    """
    parts = [part for path in paths for part in _parts(path)]
    if len(prefixes := {part.prefix for part in parts}) < len(parts):
        raise Invalid(f"--data: two sources have the same name: {', '.join(sorted(prefixes))}")
    groups: dict[str, int] = {}
    sides: dict[Split | None, list[tuple[Image, File]]] = {Split.TRAIN: [], Split.TEST: []}
    for number, part in enumerate(parts):
        for image, file in _settled(part, threads=threads):
            groups.setdefault(file.label, number)
            sides[image.split].append((image, file))
    measured = {image.digest for image, _ in sides[Split.TEST]}
    return Found(
        labels=tuple(sorted(groups, key=lambda label: (groups[label], label))),
        groups=groups,
        train=tuple(file for image, file in sides[Split.TRAIN] if image.digest not in measured),
        test=tuple(file for _, file in sides[Split.TEST]),
    )


def own_size(found: Found) -> int:
    """The side of the pictures if they are all squares of one size, else 32."""
    shapes = {file.shape for file in (*found.train, *found.test)}
    width, height = shapes.pop() if len(shapes) == 1 else (0, DEFAULT_SIZE)
    return height if width == height else DEFAULT_SIZE


def decoded(files: Sequence[File], *, image_size: int, threads: int) -> Tensor:
    """uint8 [files, 3, image_size, image_size]; raises `Invalid` naming a file that is no image."""

    def one(file: File) -> Tensor:
        try:
            return pixels(decode(file.read(), channels=COLOURS, image_size=image_size), image_size)
        except ImageRejected as rejected:
            raise Invalid(f"{file.id}: {rejected.reason}; take it out of the data") from rejected

    resident = torch.empty(len(files), COLOURS, image_size, image_size, dtype=torch.uint8)
    with ThreadPoolExecutor(threads) as pool:
        for position, image in enumerate(pool.map(one, files)):
            resident[position] = image
    return resident


def _parts(path: Path) -> list[_Tree | _Archive]:
    if path.is_file():
        return [_Archive(path)]
    archives = sorted(path.glob("*.zip"))
    return [_Archive(archive) for archive in archives] if archives else [_Tree(path)]


def _settled(part: _Tree | _Archive, *, threads: int) -> list[tuple[Image, File]]:
    """The images of a part that are kept, each with its split, sorted by id."""
    names = sorted(part.names())
    entries = (Entry(name, 0, number, is_folder=False, is_stored=True) for number, name in enumerate(names))
    try:
        found = survey(entries, limits=ArchiveLimits())
    except BatchInvalid as refused:
        raise Invalid(f"{part.path}: {refused.detail}; or zip archives of such") from refused
    placed = [(names[member.position], member.label, member.split) for member in found.members]
    labels = {count.label for count in found.classes}

    def examined(name: str, label: str, split: Split | None) -> tuple[Image, File]:
        data = part.read(name)
        identity = part.prefix + name
        file = File(identity, label, _shape(identity, data), lambda: part.read(name))
        digest = hashlib.sha256(data).hexdigest()
        return Image(identity, str(part.path), label, name, digest, len(data), split), file

    with ThreadPoolExecutor(threads) as pool:
        files = {image.id: (image, file) for image, file in pool.map(lambda place: examined(*place), placed)}
    kept = settle([image for image, _ in files.values()], (), labels=labels, max_bad_share=0).images
    return [(image, files[image.id][1]) for image in sorted(kept, key=lambda image: image.id)]


def _shape(name: str, data: bytes) -> tuple[int, int]:
    try:
        with Picture.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            return width, height
    except (OSError, ValueError, SyntaxError, Picture.DecompressionBombError) as error:
        raise Invalid(f"{name}: no image that can be read ({error}); take it out of the data") from error
