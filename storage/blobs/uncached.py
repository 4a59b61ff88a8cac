"""Files written past the page cache: large ones that nobody reads soon."""

import errno
import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType

BUFFER = 4 << 20  # bytes of one write
_BLOCK = 4096  # what offsets, lengths and addresses are multiples of; no disk asks for more
_DIRECT = getattr(os, "O_DIRECT", 0)


class UncachedFile:
    """A new file that is written once, from its beginning to its end.

    The kernel would empty a page of memory for each of the file's, copy there, and write it to the disk when the file
    is to be safe; so the disk takes the bytes at once, and memory keeps what is of more use. Where a file system cannot
    do that it is written as any other.
    """

    def __init__(self, path: Path) -> None:
        """Create it; raises FileExistsError."""
        create = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self._descriptor = os.open(path, create | _DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            path.unlink(missing_ok=True)  # some create what they then refuse to open
            self._descriptor = os.open(path, create, 0o666)
        self._buffer = mmap.mmap(-1, BUFFER)  # begins at a page
        self._filled = 0
        self._written = 0

    def __enter__(self) -> "UncachedFile":
        """Use it as it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the rest, if all went well, and close it."""
        if error is None:
            self.close()
        else:
            self._release()

    def write(self, data: bytes) -> None:
        """Append bytes; they are in the file, all of them, when it is closed."""
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
        """Write the rest and close it; raises OSError where that could not be done, and closes it all the same."""
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
            )  # it wants what we do not know: no more of it
            return 0

    def _release(self) -> None:
        os.close(self._descriptor)
        self._buffer.close()
