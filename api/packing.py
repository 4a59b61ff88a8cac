"""A batch on its way to the service: a folder is packed into a zip, an archive goes as it is."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.connection import ClientError

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


@dataclass(frozen=True, slots=True)
class Archive:
    """A file that can be sent."""

    path: Path
    content_type: str
    size: int  # bytes

    def chunks(self, on_upload: OnUpload | None) -> Iterator[bytes]:
        """The bytes in pieces; ``on_upload`` hears of each one when the next is asked for, so when it has been sent."""
        sent = 0
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                if on_upload is not None:
                    on_upload(sent, self.size)


@contextmanager
def archive_of(source: Path) -> Iterator[Archive]:
    """The archive of a folder in ImageFolder layout, or an archive itself; raises ClientError for anything else.

    A folder's archive is a temporary file. It holds the images uncompressed (they are compressed already), in the
    order of their names and without times: the same folder gives the same bytes, so a repeated request can be
    recognised.
    """
    if source.is_dir():
        with tempfile.TemporaryDirectory(prefix="accrete-") as folder:
            packed = Path(folder) / "batch.zip"
            pack(source, packed)
            yield Archive(packed, "application/zip", packed.stat().st_size)
        return
    if not source.is_file():
        raise ClientError(f"{source} does not exist: give a folder of class folders, or a zip or tar of one")
    kinds = [kind for suffix, kind in _CONTENT_TYPES.items() if source.name.lower().endswith(suffix)]
    if not kinds:
        raise ClientError(f"{source} is neither a folder nor an archive ({', '.join(_CONTENT_TYPES)})")
    yield Archive(source, kinds[0], source.stat().st_size)


def pack(folder: Path, target: Path) -> None:
    """Write the files of a folder into a zip, hidden ones left out; raises ClientError when there are none."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder)))
    if not files:
        raise ClientError(f"{folder} holds no files: expected one folder of images for each class")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            member.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(member, "w", force_zip64=True) as sink:
                while chunk := source.read(CHUNK_BYTES):
                    sink.write(chunk)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
