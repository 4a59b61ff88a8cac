"""Packed images by number in a scratch file, until it is known where they belong; memory stays bounded."""

import os
from pathlib import Path
from types import TracebackType


class Rows:
    """Rows of one length in a file that goes when this is closed; whoever knows its path may `put` there, too."""

    def __init__(self, folder: Path, *, row_bytes: int) -> None:
        """Use disk space in ``folder`` while open."""
        self.path = folder / "rows"
        self._length = row_bytes
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def __enter__(self) -> "Rows":
        """Use it as it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the space back."""
        os.close(self._descriptor)
        self.path.unlink()

    def put(self, number: int, row: bytes) -> None:
        """Keep a row; from any thread."""
        put_at(self._descriptor, row, number * self._length)

    def get(self, number: int) -> bytes:
        """A row that was put."""
        return os.pread(self._descriptor, self._length, number * self._length)


def put_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of it to an open file, or raise OSError."""
    written = os.pwrite(descriptor, data, offset)
    if written != len(data):  # what a full disk does to the last write before it refuses one
        raise OSError(f"{written} of {len(data)} bytes could be written to the scratch folder: its disk is full")
