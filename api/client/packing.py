"""A batch on its way to the service: a folder becomes a zip while it is sent, an archive goes as it is."""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from api.client.connection import ClientError
from api.client.folders import FoundFile, contents_of
from storage.archives.names import Entry, decoded

OnUpload = Callable[[int, int], None]  # (bytes sent, bytes in all)

CHUNK_BYTES = 256 << 10
_CONTENT_TYPES = {
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".tar.gz": "application/gzip",
    ".tgz": "application/gzip",
    ".tar.bz2": "application/octet-stream",
    ".tar.xz": "application/octet-stream",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip can hold
_ENTRY_BYTES = 140  # what a zip holds of a file beside its bytes and twice its name


class Source(Protocol):
    """What can be sent as a batch, as often as it is asked for."""

    @property
    def content_type(self) -> str:
        """Its media type."""

    @property
    def length(self) -> int | None:
        """Bytes, where they are known for certain before the last of them is sent."""

    def chunks(self, on_upload: OnUpload | None) -> Iterator[bytes]:
        """The bytes in pieces; ``on_upload`` hears of each one when the next is asked for, so when it has been sent."""


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
    """A folder that is packed while it is sent: nothing is written, and a file at a time is in memory.

    It holds the images uncompressed (they are compressed already), in the order of their names and without times: the
    same folder gives the same bytes, so a repeated request can be recognised.
    """

    files: Sequence[FoundFile]
    folders: Sequence[str] = ()
    unusable: Sequence[tuple[str, str]] = ()  # what cannot be sent or is not worth it, and why
    vanished: list[tuple[str, str]] = field(default_factory=list)  # what could not be read when its turn came, and why
    content_type: str = "application/zip"
    length: None = None

    @property
    def names(self) -> list[tuple[str, bool]]:
        """The name of each file in the archive, and whether it had to be guessed."""
        return sendable_names([file.name for file in self.files])

    def entries(self) -> list[Entry]:
        """Everything in it as an archive would list it; the position of a file is that in ``files``."""
        files = (
            Entry(name, file.size, position, is_folder=False, is_stored=True, is_guessed=is_guessed)
            for position, (file, (name, is_guessed)) in enumerate(zip(self.files, self.names, strict=True))
        )
        return [*files, *(Entry(name, 0, -1, is_folder=True, is_stored=True) for name in self.folders)]

    def only(self, positions: Sequence[int]) -> "Folder":
        """The folder with some of its files."""
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
        """Write a file into the archive; pauses after each piece. Raises ClientError when it breaks off."""
        member = zipfile.ZipInfo(name, _EPOCH)
        member.external_attr = 0o644 << 16
        try:
            source = file.path.open("rb")
        except OSError as error:
            self.vanished.append((file.name, f"cannot be read: {error.strerror}"))
            return
        left = file.size  # of one that grows meanwhile, no more is sent than was told
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
    """The names for the archive, and whether they are no UTF-8 and were read as an old code page; none comes twice."""
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
    """What a zip is written into, and taken out of in pieces; it cannot go back, so sizes follow each file's bytes."""

    def __init__(self) -> None:
        self._gathered = bytearray()

    def write(self, data: bytes) -> int:
        self._gathered += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self, least: int) -> bytes:
        """What has gathered, if it is so much; else nothing, for now."""
        if len(self._gathered) < least:
            return b""
        chunk = bytes(self._gathered)
        self._gathered.clear()
        return chunk
