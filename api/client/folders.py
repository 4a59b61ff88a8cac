"""The contents of a local folder before it is sent: its files, and the entries that cannot be sent."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from api.client.connection import ClientError
from storage.archives.file_kinds import ignored_because

NOT_A_FILE = "no file, but a socket, a pipe or a device"
LOOP = "a link to a folder that it lies in"
DANGLING = "a link to nothing"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read."""

    path: Path
    name: str  # relative to the folder, with `/`; bytes that are not UTF-8 are surrogates, as by `os.fsdecode`
    size: int  # bytes


@dataclass(slots=True)
class Contents:
    """What a folder holds, in the order of names; links are followed."""

    files: list[FoundFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)  # (name, reason), for messages


def contents_of(folder: Path) -> Contents:
    """Everything below a folder; raises ClientError if the folder itself cannot be read.

    Hidden folders and those of an operating system are not entered.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise ClientError(f"{folder} cannot be read: {error.strerror}") from error
    found = Contents()
    _look(folder, "", found, above=())
    return found


def _look(folder: Path, prefix: str, found: Contents, *, above: tuple[tuple[int, int], ...]) -> None:
    """Add the entries of one folder; ``above``: device and inode of each enclosing folder, to find loops of links."""
    here = folder.stat()
    above = (*above, (here.st_dev, here.st_ino))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.unusable.append((prefix, _cannot_be_read(error)))
        return
    for entry in entries:
        name = prefix + entry.name
        if reason := ignored_because([entry.name]):
            found.unusable.append((name, reason))
            continue
        try:
            status = entry.stat()
        except OSError as error:  # removed meanwhile, a link to nothing, or one to itself
            found.unusable.append((name, DANGLING if entry.is_symlink() else _cannot_be_read(error)))
            continue
        if not stat.S_ISDIR(status.st_mode):
            _add_file(Path(entry.path), name, status, found)
        elif (status.st_dev, status.st_ino) in above:
            found.unusable.append((f"{name}/", LOOP))
        else:
            found.folders.append(name)
            _look(Path(entry.path), f"{name}/", found, above=above)


def _add_file(path: Path, name: str, status: os.stat_result, found: Contents) -> None:
    if not stat.S_ISREG(status.st_mode):
        found.unusable.append((name, NOT_A_FILE))
    elif not os.access(path, os.R_OK):
        found.unusable.append((name, "cannot be read: Permission denied"))
    else:
        found.files.append(FoundFile(path, name, status.st_size))


def _cannot_be_read(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"
