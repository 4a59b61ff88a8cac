"""What the names in an archive may be, and which class and side each stands for.

Names are the part of an upload that an attacker writes freely, so every one is checked before any is used.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from storage.domain import Split
from storage.errors import ArchiveUnsafe

MAX_NAME = 1024  # characters of a whole name
MAX_LABEL = 200  # characters of a class name
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif"})
DRIVE = re.compile(r"[A-Za-z]:")
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # control, line, direction
SPLITS = {"train": Split.TRAIN, "test": Split.TEST}


class Entry(NamedTuple):
    """What an archive's directory says about one member."""

    name: bytes  # as the archive has it
    size: int  # bytes unpacked, as declared
    position: int  # where its reader finds it again
    is_folder: bool
    is_stored: bool  # it lies in the archive's file as it is, not compressed


def shown(name: str | bytes) -> str:
    """A name as a message may carry it: quoted, escaped, of bounded length."""
    return ascii(name[:120]) + ("…" if len(name) > 120 else "")


def unsafe(name: str | bytes, reason: str) -> ArchiveUnsafe:
    """The refusal of a whole archive because of one member."""
    return ArchiveUnsafe(f"the archive is refused: member {shown(name)} {reason}", member=shown(name))


def label_fault(label: str) -> str | None:
    """Why a text cannot be a class name, or None if it can."""
    if not label or label in {".", ".."} or "/" in label or "\\" in label:
        return "is no class name: it must be a single folder's name"
    if len(label) > MAX_LABEL:
        return f"has a class name of {len(label)} characters, {MAX_LABEL} at most are allowed"
    if FORBIDDEN.search(label):
        return "holds control characters"
    return None


def safe_name(raw: bytes) -> str:
    """A member's name in normal form (UTF-8, NFC, no ``./`` before it); ArchiveUnsafe if it could do harm."""
    try:
        name = unicodedata.normalize("NFC", raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise unsafe(raw, "has a name that is not UTF-8") from None
    if len(name) > MAX_NAME:
        raise unsafe(name, f"has a name of {len(name)} characters, {MAX_NAME} at most are allowed")
    if FORBIDDEN.search(name):
        raise unsafe(name, "has control characters in its name")
    if "\\" in name:
        raise unsafe(name, "has a backslash in its name: folders are separated by /")
    if name.startswith("/") or DRIVE.match(name):
        raise unsafe(name, "has an absolute path")
    parts = [part for part in name.split("/") if part]
    while parts and parts[0] == ".":
        del parts[0]
    if "." in parts or ".." in parts:
        raise unsafe(name, "has . or .. in its path")
    return "/".join(parts)


def is_ignored(name: str) -> bool:
    """Whether operating systems leave such files behind: hidden ones, ``__MACOSX``, ``Thumbs.db``."""
    parts = name.split("/")
    return (
        parts[0] == "__MACOSX"
        or parts[-1].lower() in {"thumbs.db", "desktop.ini"}
        or any(part.startswith(".") for part in parts)
    )


def is_image(name: str) -> bool:
    """Whether the extension is one of the formats this service decodes."""
    dot = name.rfind(".")
    return dot > name.rfind("/") + 1 and name[dot:].lower() in EXTENSIONS


class Layout:
    """Where in the names the class stands: ``class/image`` or ``train/class/image`` + ``test/class/image``.

    One folder around everything is tolerated. Decided by where most images are, so that a stray file at another
    depth becomes a reject instead of a reason to misread the rest.
    """

    def __init__(self, images: Sequence[bytes]) -> None:
        """Look at all images' names (UTF-8), twice; nothing is kept of them, so any number of folders is fine."""
        self.wrapper = self._wrapper(images)
        in_sides = deeper = 0
        for name in images:
            folders = _folders(name)[len(self.wrapper) :]
            if folders and _side(folders[0]):
                in_sides += 1
                deeper += len(folders) > 1
        self.has_splits = deeper > in_sides / 2  # else a class is called train or test

    def place(self, name: str) -> tuple[str, Split | None] | None:
        """Class and side of an image, or None where none is expected at that depth."""
        folders = tuple(name.split("/")[:-1])
        inner = folders[len(self.wrapper) :]
        if folders[: len(self.wrapper)] != self.wrapper:
            return None
        if self.has_splits:
            side = _side(inner[0]) if len(inner) == 2 else None
            return (inner[1], side) if side else None
        return (inner[0], None) if len(inner) == 1 else None

    @property
    def pattern(self) -> str:
        """What a name has to look like here, for the reason of a reject."""
        outer = "".join(f"{folder}/" for folder in self.wrapper)
        return f"{outer}train/class/image or {outer}test/class/image" if self.has_splits else f"{outer}class/image"

    @staticmethod
    def _wrapper(images: Sequence[bytes]) -> tuple[str, ...]:
        """The one folder around everything, if there is one: all images are in it and most not directly."""
        top: str | None = None
        directly = deeper = 0
        for name in images:
            folders = _folders(name)
            if not folders:
                continue
            if folders[0] != (top := top or folders[0]):
                return ()
            directly += len(folders) == 1
            deeper += len(folders) > 1
        return (top,) if top and deeper > directly and not _side(top) else ()


def _folders(name: bytes) -> list[str]:
    """The folders above a file, outermost first."""
    return name.decode().split("/")[:-1]


def _side(folder: str) -> Split | None:
    """The side a folder called train or test stands for."""
    return SPLITS.get(folder.lower())
