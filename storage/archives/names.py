"""Decodes and checks the names in an archive.

An attacker can write any name into an upload, so every name is checked before any is used.
"""

import re
from typing import NamedTuple

from storage.errors import AccreteError, ArchiveUnsafe
from storage.labels import FORBIDDEN

MAX_NAME = 1024  # characters of a whole name
NOT_UTF8 = "has a name that is not UTF-8"
_DRIVE = re.compile(r"[A-Za-z]:")


class Entry(NamedTuple):
    """What an archive's directory says about one member."""

    name: str  # as the archive has it, decoded; not yet checked
    size: int  # bytes unpacked, as declared
    position: int  # where its reader finds it again
    is_folder: bool
    is_stored: bool  # it lies in the archive's file as it is, not compressed
    fault: AccreteError | None = None  # why it cannot be taken; without effect on ignored files
    is_guessed: bool = False  # the name was in no stated encoding


def shown(name: str | bytes) -> str:
    """A name for an error message: quoted, escaped, and cut after 120 characters."""
    return ascii(name[:120]) + ("…" if len(name) > 120 else "")


def printable(name: str) -> str:
    """An unchecked name for an answer: forbidden characters replaced, and cut after ``MAX_NAME`` characters."""
    return FORBIDDEN.sub("\ufffd", name[:MAX_NAME])


def unsafe(name: str | bytes, reason: str) -> ArchiveUnsafe:
    """The error that refuses a whole archive because of one member."""
    return ArchiveUnsafe(f"the archive is refused: member {shown(name)} {reason}", member=shown(name))


def parts_of(name: str) -> list[str]:
    """The folders and the file of a path, without a leading ``./``.

    Raises `ArchiveUnsafe` for an absolute path, and for one with ``.`` or ``..`` in it. A backslash is a separator
    too: tools on Windows write it, where it cannot be part of a name.
    """
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path):
        raise unsafe(name, "has an absolute path")
    parts = [part for part in path.split("/") if part]
    while parts and parts[0] == ".":
        del parts[0]
    if "." in parts or ".." in parts:
        raise unsafe(name, "has . or .. in its path")
    return parts


def check(name: str) -> None:
    """Raise `ArchiveUnsafe` if a name is too long or holds control characters."""
    if len(name) > MAX_NAME:
        raise unsafe(name, f"has a name of {len(name)} characters, {MAX_NAME} at most are allowed")
    if FORBIDDEN.search(name):
        raise unsafe(name, "has control characters in its name")


def decoded(raw: bytes, *, legacy: str) -> tuple[str, bool]:
    """A name of unknown encoding, decoded as UTF-8 if it is valid, otherwise with the code page ``legacy``.

    Also returns whether the code page was used. Bytes that the code page does not have become U+FFFD.
    """
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode(legacy, "replace"), True
