"""Files past the page cache hold what was written, on a disk that takes that and on one that does not."""

import errno
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from storage.blobs import uncached
from storage.blobs.uncached import BUFFER, UncachedFile

SIZES = (0, 1, 4095, 4096, 4097, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER + 12_345)


def pieces(size: int) -> list[bytes]:
    """Bytes in parts of all lengths."""
    source = random.Random(size)
    parts: list[bytes] = []
    while size:
        parts.append(source.randbytes(min(size, source.choice([0, 1, 1000, 40_000, 3 << 20, 9 << 20]))))
        size -= len(parts[-1])
    return parts


def folders(tmp_path: Path) -> list[Path]:
    """On the disk, and in memory where this machine has such a file system."""
    memory = Path("/dev/shm")
    return [tmp_path, *([memory] if memory.is_dir() else [])]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_holds_what_was_written(tmp_path: Path, size: int) -> None:
    for number, folder in enumerate(folders(tmp_path)):
        path = folder / f"accrete-test-{os.getpid()}-{number}"
        parts = pieces(size)
        try:
            with UncachedFile(path) as file:
                for part in parts:
                    file.write(part)
            assert path.read_bytes() == b"".join(parts)
        finally:
            path.unlink(missing_ok=True)


def test_what_the_disk_does_not_take_past_the_cache_it_takes_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncached, "_BLOCK", 1)  # the last write has a length that direct writing may not have
    with UncachedFile(tmp_path / "odd") as file:
        file.write(b"odd")
    assert (tmp_path / "odd").read_bytes() == b"odd"


def test_no_file_is_written_twice(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"already")
    with pytest.raises(FileExistsError):
        UncachedFile(tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"already"


FULL = f"""
import errno, os, resource, signal, sys
from pathlib import Path
from storage.blobs.uncached import UncachedFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({BUFFER}, {BUFFER}))
before = len(os.listdir("/proc/self/fd"))
file = UncachedFile(Path(sys.argv[1]))
file.write(bytes({BUFFER} + 10))
try:
    file.close()
except OSError as error:
    print(errno.errorcode[error.errno], len(os.listdir("/proc/self/fd")) - before)
"""


def test_a_disk_that_takes_no_more_is_an_error_and_the_file_is_closed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "full")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "EFBIG 0\n"


def test_after_an_error_nothing_more_is_written(tmp_path: Path) -> None:
    def interrupted() -> None:
        with UncachedFile(tmp_path / "file") as file:
            file.write(b"some")
            raise OSError(errno.EIO, "interrupted")

    with pytest.raises(OSError, match="interrupted"):
        interrupted()
    assert (tmp_path / "file").read_bytes() == b""


def test_memory_for_writing_is_bounded(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    part = bytes(1 << 20)
    with UncachedFile(tmp_path / "large") as file:
        for _ in range(64):
            file.write(part)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
