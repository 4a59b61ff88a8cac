"""Archives as the tools of the world write them: names in code pages, archives one behind the other, padding."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from storage.archives.reading import ArchiveLimits, read, scan
from storage.errors import ArchiveUnreadable, ArchiveUnsafe
from tests.storage.packing import tarred, whole_zip, zipped

LIMITS = ArchiveLimits()
PETS = {"cat/1.jpg": b"miau", "dog/1.jpg": b"wau" * 50_000}
MORE = {"emu/1.jpg": b"boom", "fox/1.jpg": b"ring" * 300}


def unpacked(path: Path) -> dict[str, bytes]:
    return {member.name: content.data for member, content in read(path, scan(path, limits=LIMITS))}


def written(names: list[bytes], *, flags: int = 0, extra: bytes = b"", folders: tuple[bytes, ...] = ()) -> bytes:
    """A zip with names as bytes, as old tools of Windows write it; each file holds its number."""
    parts, directory = b"", b""
    for number, name in enumerate([*folders, *names]):
        data = b"" if name in folders else str(number).encode()
        crc, at = zlib.crc32(data), len(parts)
        sizes = (crc, len(data), len(data), len(name), len(extra))
        parts += struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, 0, 0, 0x5821, *sizes) + name + extra + data
        rest = (0, 0, 0, 0x20, at)
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, flags, 0, 0, 0x5821, *sizes, *rest) + name + extra
    return whole_zip(parts, directory, len(names) + len(folders))


# Names in zips


@pytest.mark.parametrize("encoding", ["cp437", "utf-8"])
def test_a_zip_name_without_a_flag_is_utf8_if_it_can_be_and_of_the_dos_code_page_if_not(archive, encoding):
    names = ["Äpfel/größte.jpg", "Birnen/1.jpg"]
    index = scan(archive(written([name.encode(encoding) for name in names])), limits=LIMITS)
    assert [member.name for member in index.members] == names
    assert [count.label for count in index.classes] == ["Birnen", "Äpfel"]
    assert any("no stated encoding" in note for note in index.notes) == (encoding == "cp437")


def unicode_path(name: str, *, of: bytes) -> bytes:
    data = b"\1" + struct.pack("<L", zlib.crc32(of)) + name.encode()
    return struct.pack("<2H", 0x7075, len(data)) + data


def test_a_name_that_info_zip_adds_in_unicode_counts(archive):
    old = b"?????/1.jpg"
    made = written([old], extra=b"UT\1\0\0" + unicode_path("リンゴ/1.jpg", of=old))
    assert [member.name for member in scan(archive(made), limits=LIMITS).members] != ["リンゴ/1.jpg"]  # an ASCII name
    old = "äääää/1.jpg".encode("cp437")
    made = written([old], extra=b"UT\1\0\0" + unicode_path("リンゴ/1.jpg", of=old))
    assert unpacked(archive(made)) == {"リンゴ/1.jpg": b"0"}


def test_but_not_where_the_entry_was_renamed_since(archive):
    old = "äpfel/1.jpg".encode("cp437")
    made = written([old], extra=unicode_path("リンゴ/1.jpg", of=b"other"))
    assert [count.label for count in scan(archive(made), limits=LIMITS).classes] == ["äpfel"]


@pytest.mark.parametrize("name", ["../../1.jpg", "/etc/1.jpg", "C:\\1.jpg", "a/\u202egpj.jpg"])
def test_a_name_in_unicode_is_checked_as_any_other(archive, name):
    old = "äpfel/1.jpg".encode("cp437")
    with pytest.raises(ArchiveUnsafe):
        scan(archive(written([old], extra=unicode_path(name, of=old))), limits=LIMITS)


def test_backslashes_of_windows_separate_folders(archive):
    made = written([b"pets\\cat\\1.jpg", b"pets\\dog\\1.jpg"], folders=(b"pets\\", b"pets\\cat\\", b"pets\\dog\\"))
    index = scan(archive(made), limits=LIMITS)
    assert [count.label for count in index.classes] == ["cat", "dog"]
    assert (index.rejects, index.ignored) == ((), ())


def test_two_spellings_of_one_name_are_two_entries_of_it(archive):
    with pytest.raises(ArchiveUnsafe, match="is there twice"):
        scan(archive(written(["é/1.jpg".encode("cp437"), "é/1.jpg".encode()])), limits=LIMITS)


# What is before and behind a zip


@pytest.mark.parametrize("before", [b"MZ" + bytes(500), b"PK\3\4 a picture, say"])
def test_a_zip_that_extracts_itself_is_refused_with_the_way_out(archive, before):
    with pytest.raises(ArchiveUnreadable, match=r"other data was put before.*send a plain zip"):
        scan(archive(before + zipped(PETS)), limits=LIMITS)


@pytest.mark.parametrize("behind", [b"\0" * 100, b"\r\n", b"<html>", zipped(MORE)[:-5]])
def test_what_follows_a_zip_is_not_passed_over(archive, behind):
    with pytest.raises(ArchiveUnreadable):
        scan(archive(zipped(PETS) + behind), limits=LIMITS)


# Tars


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("padding", [0, 512, 20_480, 5 << 20])
def test_archives_one_behind_the_other_are_read_to_the_end(archive, pack, padding):
    assert unpacked(archive(pack(tarred(PETS) + bytes(padding) + tarred(MORE) + bytes(padding)))) == PETS | MORE


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_so_are_compressed_ones(archive, pack):
    assert unpacked(archive(pack(tarred(PETS)) + pack(tarred(MORE)))) == PETS | MORE


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("behind", [b"x", b"<html>" * 1000, bytes(511) + b"x", tarred(MORE)[:700], zipped(MORE)])
def test_other_data_behind_an_archive_are_refused(archive, pack, behind):
    with pytest.raises(ArchiveUnreadable):
        scan(archive(pack(tarred(PETS) + behind)), limits=LIMITS)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("behind", [b"x", b"<html>", gzip.compress(b"x", mtime=0)[:9], bz2.compress(b"x")[:9]])
def test_so_are_those_behind_the_compressed_part(archive, pack, behind):
    with pytest.raises(ArchiveUnreadable):
        scan(archive(pack(tarred(PETS)) + behind), limits=LIMITS)


def test_endless_zeros_are_refused(archive, monkeypatch):
    monkeypatch.setattr("storage.archives.tars.PADDING_BYTES", 1 << 20)
    with pytest.raises(ArchiveUnreadable, match="zeros after its end mark"):
        scan(archive(gzip.compress(tarred(PETS) + bytes(2 << 20))), limits=LIMITS)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["Äpfel", "x" * 90 + "ä"])
def test_tar_names_of_an_old_code_page_are_read_and_this_is_said(archive, tar_format, folder):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format, encoding="latin-1") as tar:
        for name in (f"{folder}/{'n' * 60}.jpg", "Birnen/1.jpg"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    index = scan(archive(buffer.getvalue()), limits=LIMITS)
    assert {count.label for count in index.classes} == {folder, "Birnen"}
    assert any("no stated encoding" in note for note in index.notes) == (tar_format != tarfile.PAX_FORMAT)


def test_a_tar_with_a_label_and_the_sums_of_old_machines_is_read(archive):
    label = tarfile.TarInfo("backup of Monday")
    label.type = b"V"
    first = tarfile.TarInfo("é/1.jpg")
    block = bytearray(first.tobuf(tarfile.GNU_FORMAT))
    signed = sum(byte - 256 * (byte > 127) for byte in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % signed
    assert unpacked(archive(label.tobuf(tarfile.GNU_FORMAT) + bytes(block) + tarred(PETS))) == {"é/1.jpg": b""} | PETS


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", [".git/link", "cat/.link", "__MACOSX/link", "cat/Thumbs.db"])
def test_what_is_ignored_may_be_of_any_kind(archive, kind, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    index = scan(archive(buffer.getvalue()[:-10_240] + info.tobuf() + tarred(PETS)), limits=LIMITS)
    assert len(index.members) == 2
    assert sum(group.count for group in index.ignored) >= 1


def test_so_in_a_zip(archive):
    buffer = io.BytesIO(zipped(PETS))
    with zipfile.ZipFile(buffer, "a") as zipper:
        for name, mode, method in ((".git/link", 0o120777, 0), (".git/pipe", 0o010666, 0), (".git/packed", 0, 12)):
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            zipper.writestr(info, b"x")
    assert unpacked(archive(buffer.getvalue())) == PETS


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"Rar!\x1a\7\1\0", "a RAR"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
        (b"\xff\xd8\xff\xe0", "a picture"),
    ],
)
def test_what_an_upload_is_instead_is_said(archive, start, kind):
    with pytest.raises(ArchiveUnreadable, match=f"{kind}.*send a whole zip"):
        scan(archive(start + bytes(2000)), limits=LIMITS)
