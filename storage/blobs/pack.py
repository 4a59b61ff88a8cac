"""Writing a pack: a blob that holds many image files as they were uploaded, one after another.

A file for each image would cost ingestion more than decoding it does, and an object store a request each. A pack begins
with random bytes, so that no two are the same blob: it belongs to one batch, and goes with the last of its images,
whoever else stores the same ones. Layout: 16 random bytes, then the files; where each lies stands in its row, and its
SHA-256 there tells whether it is whole.
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

LARGEST = 64 << 20  # bytes of files, with which a pack takes no more; bounds what is written anew when an image goes
SALT = 16  # bytes before the first file
_VECTOR = 512  # pieces of one write; Linux takes 1,024


class PackWriter:
    """A new pack at a path, file by file."""

    def __init__(self, path: Path, *, read_soon: bool = False) -> None:
        """Begin with none. ``read_soon``: what was added can be read at the path after the next `flush`."""
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
        """Append a file, or several together, and say where it begins; `flush` before memory is short."""
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
        """Write the rest and end it."""
        if self._is_open:
            self._is_open = False
            try:
                self.flush()
            finally:
                self._file.close()

    def store(self, blobs: BlobStore) -> Pack:
        """Put it, closed, into a store; it is gone from its path afterwards."""
        return Pack(blobs.put_file(self.path, sha256=self._hash.hexdigest()), self.size)


def _write_all(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write pieces as they lie: joining them costs a quarter of writing them."""
    left = deque(memoryview(data) for data in pieces)
    while left:
        written = os.writev(descriptor, list(islice(left, _VECTOR)))
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]
