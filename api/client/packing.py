"""A batch on its way to the service: a folder becomes a zip while it is sent, an archive goes as it is."""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from api.client.connection import CHUNK_BYTES, ClientError
from api.client.folders import FoundFile, contents_of
from storage.archives.names import Entry, decoded

OnUpload = Callable[[int, int], None]  # (bytes sent, bytes in all)

_CONTENT_TYPES = {
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".tar.gz": "application/gzip",
    ".tgz": "application/gzip",
    ".tar.bz2": "application/octet-stream",
    ".tar.xz": "application/octet-stream",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip can hold
_ENTRY_BYTES = 140  # in a zip for each file, in addition to its bytes and twice its name


class Source(Protocol):
    """A folder or archive that can be sent as a batch, more than once if necessary."""

    @property
    def content_type(self) -> str:
        """Its media type."""

    @property
    def length(self) -> int | None:
        """Size in bytes; None if it is not certain before everything is sent."""

    def chunks(self, on_upload: OnUpload | None) -> Iterator[bytes]:
        """The bytes in pieces.

        ``on_upload`` is called for a piece when the next one is requested: by then the piece has been sent.
        """


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that exists as a file."""

    path: Path
    content_type: str
    length: int

    def chunks(self, on_upload: OnUpload | None) -> Iterator[bytes]:
        """The bytes of the file."""
        sent = 0
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                if on_upload is not None:
                    on_upload(sent, self.length)


@dataclass(slots=True)
class Folder:
    """A folder that is packed into a zip while it is sent: nothing is written to disk, and files are read in pieces.

    The zip holds the images uncompressed (they are compressed already), in the order of their names and without times.
    So the same folder gives the same bytes, and the service can recognise a repeated request.
    """

    files: Sequence[FoundFile]
    folders: Sequence[str] = ()
    unusable: Sequence[tuple[str, str]] = ()  # (name, reason) of entries that are not sent
    vanished: list[tuple[str, str]] = field(default_factory=list)  # (name, reason) of files that could not be opened
    content_type: str = "application/zip"
    length: None = None

    @property
    def names(self) -> list[tuple[str, bool]]:
        """The name of each file in the archive, and whether it had to be guessed."""
        return sendable_names([file.name for file in self.files])

    def entries(self) -> list[Entry]:
        """The files and folders as the entries of an archive; a file's position is its index in ``files``."""
        files = (
            Entry(name, file.size, position, is_folder=False, is_stored=True, is_guessed=is_guessed)
            for position, (file, (name, is_guessed)) in enumerate(zip(self.files, self.names, strict=True))
        )
        return [*files, *(Entry(name, 0, -1, is_folder=True, is_stored=True) for name in self.folders)]

    def only(self, positions: Sequence[int]) -> "Folder":
        """A copy with only the files at these positions."""
        return replace(self, files=[self.files[position] for position in positions], vanished=[])

    def chunks(self, on_upload: OnUpload | None) -> Iterator[bytes]:
        """The bytes of a zip."""
        self.vanished.clear()
        total = sum(file.size + _ENTRY_BYTES + 2 * len(os.fsencode(file.name)) for file in self.files)
        sink, sent = _Sink(), 0
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for file, (name, _) in zip(self.files, self.names, strict=True):
                for _ in self._member(archive, file, name):
                    if chunk := sink.taken(CHUNK_BYTES):
                        yield chunk
                        sent += len(chunk)
                        if on_upload is not None:
                            on_upload(min(sent, total - 1), total)
        yield (last := sink.taken(0))
        if on_upload is not None:
            on_upload(sent + len(last), sent + len(last))

    def _member(self, archive: zipfile.ZipFile, file: FoundFile, name: str) -> Iterator[None]:
        """Write a file into the archive, and pause after each piece; a file that cannot be opened is skipped.

        Raises ClientError if reading fails later.
        """
        member = zipfile.ZipInfo(name, _EPOCH)
        member.external_attr = 0o644 << 16
        try:
            source = file.path.open("rb")
        except OSError as error:
            self.vanished.append((file.name, f"cannot be read: {error.strerror}"))
            return
        left = file.size  # of a file that grows meanwhile, only the size known before is sent
        with source, archive.open(member, "w", force_zip64=True) as target:
            while left and (chunk := _read(source, min(CHUNK_BYTES, left))):
                target.write(chunk)
                left -= len(chunk)
                yield


def source_of(path: Path) -> Archive | Folder:
    """What to send for a folder in ImageFolder layout, or an archive; raises ClientError for anything else."""
    if path.is_dir():
        contents = contents_of(path)
        if not contents.files:
            raise ClientError(f"{path} holds no files: expected one folder of images for each class")
        return Folder(contents.files, contents.folders, contents.unusable)
    if not path.is_file():
        raise ClientError(f"{path} does not exist: give a folder of class folders, or a zip or tar of one")
    kinds = [kind for suffix, kind in _CONTENT_TYPES.items() if path.name.lower().endswith(suffix)]
    if not kinds:
        raise ClientError(f"{path} is neither a folder nor an archive ({', '.join(_CONTENT_TYPES)})")
    try:
        path.open("rb").close()
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}") from error
    return Archive(path, kinds[0], path.stat().st_size)


def _read(source: BinaryIO, count: int) -> bytes:
    try:
        return source.read(count)
    except OSError as error:
        raise ClientError(
            f"{source.name} broke off while it was read: {error.strerror}; nothing was taken in"
        ) from error


def sendable_names(names: Sequence[str]) -> list[tuple[str, bool]]:
    """The names for the archive, and for each whether it was guessed: it is not UTF-8, but decoded by an old code page.

    A guessed name that exists already gets a number, as in ``name (2).png``.
    """
    taken: dict[str, bool] = {}
    for name in names:
        readable, is_guessed = decoded(os.fsencode(name), legacy="cp1252")
        stem, dot, suffix = readable.rpartition(".")
        count = 1
        while is_guessed and readable in taken:
            count += 1
            readable = f"{stem} ({count}){dot}{suffix}"
        taken[readable] = is_guessed
    return list(taken.items())


class _Sink:
    """A file object that a zip is written to, and from which it is taken in pieces.

    It cannot seek, so `zipfile` writes a file's sizes after its bytes.
    """

    def __init__(self) -> None:
        self._gathered = bytearray()

    def write(self, data: bytes) -> int:
        self._gathered += data
        return len(data)

    def flush(self) -> None:
        """Do nothing; `zipfile` calls it."""

    def close(self) -> None:
        """Do nothing."""

    def taken(self, least: int) -> bytes:
        """Take out the bytes gathered so far if there are at least ``least``; else take none."""
        if len(self._gathered) < least:
            return b""
        chunk = bytes(self._gathered)
        self._gathered.clear()
        return chunk
