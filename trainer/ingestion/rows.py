"""Packed images by number in a scratch file, which bounds memory, until their shards are known."""

import os
from pathlib import Path
from types import TracebackType


class Rows:
    """Rows of equal length in a file that is deleted on exit; other processes may write to it by its path."""

    def __init__(self, folder: Path, *, row_bytes: int) -> None:
        """Use disk space in ``folder`` while open."""
        self.path = folder / "rows"
        self._length = row_bytes
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def __enter__(self) -> "Rows":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close and delete the file."""
        os.close(self._descriptor)
        self.path.unlink()

    def put(self, number: int, row: bytes) -> None:
        """Write a row; from any thread."""
        put_at(self._descriptor, row, number * self._length)

    def get(self, number: int) -> bytes:
        """A row that was written."""
        return os.pread(self._descriptor, self._length, number * self._length)


def put_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of ``data`` to an open file; raises OSError if it does not fit on the disk."""
    written = os.pwrite(descriptor, data, offset)
    if written != len(data):  # on a full disk the last write may be partial
        raise OSError(f"{written} of {len(data)} bytes could be written to the scratch folder: its disk is full")
