"""Archives for tests: written by the standard library, or by hand where no honest writer would."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping

import pytest

Files = Mapping[str, bytes] | Iterable[tuple[str, bytes]]  # the latter may hold a name twice


def pairs(files: Files) -> Iterable[tuple[str, bytes]]:
    """Names and contents, in order."""
    return files.items() if isinstance(files, Mapping) else files


def zipped(files: Files, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of files, the same bytes whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name")
        for name, data in pairs(files):
            entry = zipfile.ZipInfo(name)  # its time is the beginning of 1980
            entry.compress_type = method
            archive.writestr(entry, data)
    return buffer.getvalue()


def tarred(files: Files, *, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, data in pairs(files):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PACKERS: dict[str, Callable[[Files], bytes]] = {
    "zip": zipped,
    "zip stored": lambda files: zipped(files, method=zipfile.ZIP_STORED),
    "tar": tarred,
    "tar gnu": lambda files: tarred(files, tar_format=tarfile.GNU_FORMAT),
    "tar.gz": lambda files: gzip.compress(tarred(files)),
    "tar.bz2": lambda files: bz2.compress(tarred(files)),
    "tar.xz": lambda files: lzma.compress(tarred(files)),
}
each_packer = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS.keys())


def entry(name: bytes, *, size: int = 0, compressed: int = 0, method: int = 0, crc: int = 0, header: int = 0) -> bytes:
    """One entry of a zip's central directory."""
    sizes = (crc, compressed, size, len(name), 0, 0, 0, 0, 0, header)
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, method, 0, 0, *sizes) + name


def local(name: bytes, data: bytes, *, size: int = 0, method: int = 0, crc: int = 0) -> bytes:
    """One member of a zip as it stands before the directory."""
    return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, method, 0, 0, crc, len(data), size, len(name), 0) + name + data


def whole_zip(locals_: bytes, directory: bytes, count: int) -> bytes:
    """A zip of parts that need not fit together."""
    start, size, end = len(locals_), len(directory), b""
    if count >= 0xFFFF:
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
        end += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), size, start, 0)
    return locals_ + directory + end
