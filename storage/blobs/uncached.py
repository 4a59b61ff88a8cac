"""Writes large files, which are not read soon, without using the page cache."""

import errno
import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType

BUFFER = 4 << 20  # bytes of one write
_BLOCK = 4096  # bytes: offsets, lengths and addresses are multiples of it; no disk needs more
_DIRECT = getattr(os, "O_DIRECT", 0)


class UncachedFile:
    """A new file that is written once, from its beginning to its end.

    With the page cache, the kernel would evict a page of memory for each page of the file, copy the bytes there, and
    write them to the disk on fsync. With O_DIRECT, they are written to the disk at once, and the cache keeps pages that
    are of more use. On a file system without O_DIRECT, the file is written through the page cache.
    """

    def __init__(self, path: Path) -> None:
        """Create the file; raises FileExistsError if it exists."""
        create = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self._descriptor = os.open(path, create | _DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            path.unlink(missing_ok=True)  # some file systems create a file that they then refuse to open
            self._descriptor = os.open(path, create, 0o666)
        self._buffer = mmap.mmap(-1, BUFFER)  # aligned to a page
        self._filled = 0
        self._written = 0

    def __enter__(self) -> "UncachedFile":
        """Return the file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; without an error, write the rest before."""
        if error is None:
            self.close()
        else:
            self._release()

    def write(self, data: bytes) -> None:
        """Append bytes; some may reach the file only when it is closed."""
        start = 0
        with memoryview(data) as view:
            while start < len(data):
                part = view[start : start + BUFFER - self._filled]
                self._buffer[self._filled : self._filled + len(part)] = part
                self._filled += len(part)
                start += len(part)
                if self._filled == BUFFER:
                    self._drain()

    def close(self) -> None:
        """Write the rest and close the file; raises OSError if writing fails, and closes the file in any case."""
        try:
            size = self._written + self._filled
            if rest := self._filled % _BLOCK:
                self._buffer[self._filled : self._filled + _BLOCK - rest] = bytes(_BLOCK - rest)
                self._filled += _BLOCK - rest
            self._drain()
            os.ftruncate(self._descriptor, size)
        finally:
            self._release()

    def _drain(self) -> None:
        with memoryview(self._buffer) as buffer:
            done = 0
            while done < self._filled:
                with buffer[done : self._filled] as part:
                    done += self._write_some(part)
            self._written += done
        self._filled = 0

    def _write_some(self, part: memoryview) -> int:
        try:
            return os.write(self._descriptor, part)
        except OSError as error:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & _DIRECT:
                raise
            fcntl.fcntl(
                self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT
            )  # its alignment is unknown: continue without O_DIRECT
            return 0

    def _release(self) -> None:
        os.close(self._descriptor)
        self._buffer.close()
