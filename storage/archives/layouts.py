"""Folder layouts: how the path of an image gives its class, and its side of the split if it has one.

The layouts are ``class/image``, ``train/class/image`` with ``test/class/image``, and ``class/train/image`` with
``class/test/image``. Folders around everything are ignored. Folders within a class belong to it, as with torchvision's
ImageFolder. Any other layout is refused, with an error that says what was found: a folder must not become a class by
accident.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from storage.archives.names import printable
from storage.archives.splits import is_validation, may_be_a_class, side_of
from storage.domain import Split
from storage.errors import BatchInvalid
from storage.labels import folded

EXPECTED = "expected class/image, or train/class/image and test/class/image"
_GENERIC = re.compile(  # folders of exports for detection and segmentation, and of images without classes
    r"(images?|imgs?|jpe?g|png|jpegimages|pictures?|photos?|data|dataset|files|inputs?|raw|all|labels?|annotations?|masks?|"
    r"segmentation(class|object)|bbox(es)?|unlabell?ed)[ _-]?\d*"
)


class Place(NamedTuple):
    """The class and the side of an image, by its path."""

    label: str
    split: Split | None
    folder: str  # of the class, as it is spelt in the archive
    is_nested: bool  # the image lies in a folder below that of its class
    is_validation: bool  # its side is called validation, not test


class Layout:
    """The layout of an archive, decided by where most images are: a stray file becomes a reject and changes nothing."""

    def __init__(self, images: Sequence[bytes]) -> None:
        """Read all images' names (UTF-8) a few times; none is kept, so memory does not grow with the folders.

        Raises `BatchInvalid` if folders that are not classes would be taken for classes.
        """
        self._images = images
        self.place_in = lru_cache(maxsize=10_000)(self._place_in)
        self.wrapper = self._wrapper(in_sides=False)
        self.has_sides = self._has_sides()
        self.inner = self._wrapper(in_sides=True) if self.has_sides else ()
        del self._images

    def place(self, name: str) -> Place | None:
        """Class and side of an image, or None if the layout has no images at its path."""
        return self.place_in(name.rpartition("/")[0])

    def _place_in(self, folder: str) -> Place | None:
        folders = self._within(folder)
        if not folders:
            return None
        if not self.has_sides:
            label, *rest = folders
            side = side_of(rest[0]) if rest else None
            return Place(
                folded(label), side, label, len(rest) > (side is not None), bool(rest) and is_validation(rest[0])
            )
        first, side, folders = folders[0], side_of(folders[0]), _below_side(folders)
        if side is None or len(folders) <= len(self.inner) or tuple(folders[: len(self.inner)]) != self.inner:
            return None
        folders = folders[len(self.inner) :]
        return Place(folded(folders[0]), side, folders[0], len(folders) > 1, is_validation(first))

    def is_unlabelled(self, name: str) -> bool:
        """Whether an image lies directly in the evaluation side's folder: without a class, it is ignored, no reject."""
        folders = self._within(name.rpartition("/")[0])
        return self.has_sides and len(folders) == 1 and side_of(folders[0]) is Split.TEST

    @property
    def pattern(self) -> str:
        """The form that the path of an image must have in this layout, for the reason of a reject."""
        outer, inner = ("".join(f"{folder}/" for folder in folders) for folders in (self.wrapper, self.inner))
        sides = f"{outer}train/{inner}class/image or {outer}test/{inner}class/image"
        return sides if self.has_sides else f"{outer}class/image"

    def refuse_generic(self, labels: Sequence[str]) -> None:
        """Raise `BatchInvalid` if all class folders have generic names, such as ``images``."""
        if labels and all(_GENERIC.fullmatch(label.lower()) for label in labels):
            seen = " and ".join(f"{printable(label)}/" for label in labels[:3])
            raise BatchInvalid(
                f"the images lie in {seen} without class folders: {EXPECTED}. An export for detection or segmentation "
                "(YOLO, COCO, VOC) has no classes of whole images: export it as folders, one for each class",
                folders=list(labels[:10]),
            )

    def _within(self, folder: str) -> list[str]:
        """A folder's path below the wrapper folders, outermost first; empty if the folder is not within them."""
        folders = folder.split("/") if folder else []
        depth = len(self.wrapper)
        return folders[depth:] if tuple(folders[:depth]) == self.wrapper else []

    def _folders(self) -> Iterator[tuple[str, int]]:
        """The folders of the images in order, each with the number of consecutive images in it."""
        for folder, names in groupby(name.rpartition(b"/")[0] for name in self._images):
            yield folder.decode(), sum(1 for _ in names)

    def _wrapper(self, *, in_sides: bool) -> tuple[str, ...]:
        """The folders around all images (or, ``in_sides``, within the sides' folders), most images deeper in them."""
        found: tuple[str, ...] = ()
        while folder := _around(self._below(found, in_sides=in_sides)):
            if not in_sides and side_of(folder):
                break
            found = (*found, folder)
        return found

    def _below(self, found: tuple[str, ...], *, in_sides: bool) -> Iterator[tuple[list[str], int]]:
        """The folders of the images below ``found``, relative to it, each with its number of images."""
        for folder, count in self._folders():
            folders = self._within(folder) if in_sides else folder.split("/") if folder else []
            if in_sides:
                folders = _below_side(folders) if folders and side_of(folders[0]) else []
            if tuple(folders[: len(found)]) == found:
                yield folders[len(found) :], count

    def _has_sides(self) -> bool:
        """Whether the outermost folders are sides; raises `BatchInvalid` if they are neither sides nor classes."""
        deep, flat, others, names = Counter[Split](), Counter[Split](), 0, set[str]()
        for folder, count in self._folders():
            folders = self._within(folder)
            side = side_of(folders[0]) if folders else None
            if side is None:
                others += count if folders else 0
                continue
            (deep if len(_below_side(folders)) else flat)[side] += count
            if len(names) < 10:
                names.add(folders[0])
        if not names:
            return False
        return _decided(deep, flat, others, sorted(names))


def _decided(deep: Counter[Split], flat: Counter[Split], others: int, names: list[str]) -> bool:
    """Whether folders with names of sides are sides (True) or classes; raises `BatchInvalid` if they are neither.

    ``deep`` counts the images in folders below them, ``flat`` those directly in them, ``others`` those elsewhere.
    """
    seen = ", ".join(f"{printable(name)}/" for name in names)
    first = Split.TRAIN if deep[Split.TRAIN] or flat[Split.TRAIN] else Split.TEST
    if deep[first] > flat[first]:
        if sum(deep.values()) <= others:
            raise BatchInvalid(
                f"class folders lie in {seen} and beside it: {EXPECTED}, and nothing else", folders=names
            )
        return True
    are_classes = others and deep.total() <= flat.total() and all(map(may_be_a_class, names))
    if are_classes and (len(flat) == 1 or others >= flat.total()):
        return False
    raise BatchInvalid(
        f"images lie directly in {seen}, which would be no class: {EXPECTED}. Leave out what has no class; to teach a "
        f"class of that name, send its images with POST /v1/batches/{{id}}/images?label={names[0]}",
        folders=names,
    )


def _below_side(folders: list[str]) -> list[str]:
    """The folders below that of a side, which some tools write twice (test_set/test_set/class/image)."""
    is_again = len(folders) > 1 and side_of(folders[1]) is side_of(folders[0])
    return folders[2:] if is_again and (len(folders) > 2 or not may_be_a_class(folders[1])) else folders[1:]


def _around(places: Iterator[tuple[list[str], int]]) -> str | None:
    """The folder that all paths begin with, or None; most images must lie deeper in it, not directly."""
    top: str | None = None
    directly = deeper = 0
    for folders, count in places:
        if not folders:
            continue
        if folders[0] != (top := top or folders[0]):
            return None
        directly += count if len(folders) == 1 else 0
        deeper += count if len(folders) > 1 else 0
    return top if deeper > directly else None
