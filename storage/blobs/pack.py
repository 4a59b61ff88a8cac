"""Writing a pack: a blob that holds many image files as they were uploaded, one after another.

To write a file for each image would take longer than to decode it, and an object store would need a request for each.
A pack begins with random bytes, so that no two packs are the same blob, even with the same images. So a pack belongs to
one batch and is deleted with the last of its images. Layout: 16 random bytes, then the files. The row of an image holds
the offset of its file, its size, and its SHA-256 to check it.
"""

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from storage.blobs.store import BlobStore
from storage.blobs.uncached import UncachedFile
from storage.domain import Pack

LARGEST = 64 << 20  # bytes of files with which a pack is full; bounds what is rewritten when an image is deleted
SALT = 16  # bytes before the first file
_VECTOR = 512  # pieces of one write; Linux takes 1,024


class PackWriter:
    """A new pack at a path, file by file."""

    def __init__(self, path: Path, *, read_soon: bool = False) -> None:
        """Create the file. With ``read_soon``, added files can be read at the path after the next `flush`."""
        self.path = path
        self._file = path.open("xb", buffering=0) if read_soon else UncachedFile(path)
        self._is_open = True
        self._waiting: list[bytes] = []
        self._hash = hashlib.sha256()
        self._end = 0
        self.add(secrets.token_bytes(SALT))

    @property
    def size(self) -> int:
        """Bytes of the files so far."""
        return self._end - SALT

    def add(self, data: bytes) -> int:
        """Append a file, or several together; returns its offset in bytes. It is kept in memory until `flush`."""
        offset = self._end
        self._waiting.append(data)
        self._end += len(data)
        return offset

    def flush(self) -> None:
        """Write what was added."""
        for data in self._waiting:
            self._hash.update(data)
            if isinstance(self._file, UncachedFile):
                self._file.write(data)
        if not isinstance(self._file, UncachedFile):
            _write_all(self._file.fileno(), self._waiting)
        self._waiting.clear()

    def close(self) -> None:
        """Write the rest and close the file."""
        if self._is_open:
            self._is_open = False
            try:
                self.flush()
            finally:
                self._file.close()

    def store(self, blobs: BlobStore) -> Pack:
        """Move the closed file into a store, as a blob."""
        return Pack(blobs.put_file(self.path, sha256=self._hash.hexdigest()), self.size)


def _write_all(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write pieces without joining them, which would cost a quarter of the time of writing."""
    left = deque(memoryview(data) for data in pieces)
    while left:
        written = os.writev(descriptor, list(islice(left, _VECTOR)))
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]
