"""What the names in an archive may be, in whatever encoding they came.

Names are the part of an upload that an attacker writes freely, so every one is checked before any is used.
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
    fault: AccreteError | None = None  # why it cannot be taken, unless it is to be ignored anyway
    is_guessed: bool = False  # the name was in no stated encoding


def shown(name: str | bytes) -> str:
    """A name as a message may carry it: quoted, escaped, of bounded length."""
    return ascii(name[:120]) + ("…" if len(name) > 120 else "")


def printable(name: str) -> str:
    """A name that was not checked, as an answer may list it."""
    return FORBIDDEN.sub("\ufffd", name[:MAX_NAME])


def unsafe(name: str | bytes, reason: str) -> ArchiveUnsafe:
    """The refusal of a whole archive because of one member."""
    return ArchiveUnsafe(f"the archive is refused: member {shown(name)} {reason}", member=shown(name))


def parts_of(name: str) -> list[str]:
    """The folders and the file of a name, ``./`` before it left out; ArchiveUnsafe if it would lead elsewhere.

    A backslash separates too: tools of Windows write it, and there it can be nothing else.
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
    """ArchiveUnsafe if a name could not be stored or shown."""
    if len(name) > MAX_NAME:
        raise unsafe(name, f"has a name of {len(name)} characters, {MAX_NAME} at most are allowed")
    if FORBIDDEN.search(name):
        raise unsafe(name, "has control characters in its name")


def decoded(raw: bytes, *, legacy: str) -> tuple[str, bool]:
    """A name in no stated encoding, and whether it had to be guessed: UTF-8 where it is that, else a code page.

    Bytes that the code page does not have become U+FFFD.
    """
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode(legacy, "replace"), True
