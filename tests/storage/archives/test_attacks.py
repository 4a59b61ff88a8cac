"""Archives made to do harm: each is refused as a whole, with the member's name, in bounded memory (FAULTS)."""

import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.archives.reading import ArchiveLimits, read, scan
from storage.domain import ClassCount
from storage.errors import ArchiveUnreadable, ArchiveUnsafe
from tests.storage.packing import each_packer, entry, local, tarred, whole_zip, zipped

LIMITS = ArchiveLimits()
PETS = {"cat/1.jpg": b"miau", "dog/1.jpg": b"wau" * 100}


def unpacked(path: Path) -> dict[str, bytes]:
    return {member.name: content.data for member, content in read(path, scan(path, limits=LIMITS))}


def peak_bytes(call: Callable[[], object]) -> int:
    """Memory a call takes at most, as Python counts it."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Attacks by name


@each_packer
@pytest.mark.parametrize(
    "name",
    [
        "../cat/1.jpg",
        "cat/../1.jpg",
        "cat/..",
        "cat/./1.jpg",
        "../../../../etc/passwd",
        "/etc/cat/1.jpg",
        "//host/cat/1.jpg",
        "C:/cat/1.jpg",
        "c:cat/1.jpg",
        "..\\cat\\1.jpg",
        "cat\\..\\..\\1.jpg",
        "C:\\cat\\1.jpg",
        "\\cat\\1.jpg",
        "\\\\host\\share\\1.jpg",
        "cat/new\nline.jpg",
        "cat/\x1b[2J.jpg",
        "cat/\u202egpj.exe.jpg",
        "c" * 201 + "/1.jpg",
        "cat/" + "n" * 2000 + ".jpg",
        ".hidden/../../1.jpg",
        "__MACOSX/../1.jpg",
    ],
)
def test_a_harmful_name_refuses_the_archive_and_is_shown(archive, pack, name):
    with pytest.raises(ArchiveUnsafe, match="the archive is refused: member '") as refused:
        scan(archive(pack({**PETS, name: b"x"})), limits=LIMITS)
    assert len(refused.value.detail) < 400
    assert refused.value.detail.isprintable()
    assert refused.value.extra["member"].strip("'…")[:5] in ascii(name)


def test_a_class_name_may_have_200_characters(archive):
    label = "c" * 200
    assert scan(archive(zipped({f"{label}/1.jpg": b"x"})), limits=LIMITS).classes == (ClassCount(label, 1, 0),)


@pytest.mark.parametrize("bad", [b"cat/\xff\xfe.jpg", b"caf\x82/1.jpg", b"\xed\xa0\x80/1.jpg"])
def test_zip_names_that_say_they_are_utf8_and_are_not_are_refused(archive, bad):
    spare = "\u00e9" * (len(bad) // 2) + "X" * (len(bad) % 2)  # makes the writer set the flag
    packed = zipped({spare: b"x", **PETS}, method=zipfile.ZIP_STORED)
    with pytest.raises(ArchiveUnsafe, match="UTF-8"):
        scan(archive(packed.replace(spare.encode(), bad)), limits=LIMITS)


@pytest.mark.parametrize("bad", [b"cat/\x00.jpg", b"cat/\x81\x1b.jpg", b"..\\\x81.jpg", b"C:\\\x81\x81.jpg"])
def test_zip_names_in_a_code_page_are_checked_when_they_are_decoded(archive, bad):
    packed = zipped({"cat/" + "X" * (len(bad) - 4): b"x", **PETS}, method=zipfile.ZIP_STORED)
    with pytest.raises(ArchiveUnsafe, match=r"control characters|absolute|\.\. in its path"):
        scan(archive(packed.replace(b"cat/" + b"X" * (len(bad) - 4), bad)), limits=LIMITS)


@each_packer
@pytest.mark.parametrize("twin", ["cat/1.jpg", "./cat/1.jpg", "cat//1.jpg", "cat\\1.jpg"])
def test_two_entries_of_one_name_are_refused(archive, pack, twin):
    with pytest.raises(ArchiveUnsafe, match=r"'cat/1\.jpg' is there twice"):
        scan(archive(pack([("cat/1.jpg", b"first"), (twin, b"second")])), limits=LIMITS)


# Attacks by kind of member


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_zip_links_and_devices_are_refused(archive, mode):
    buffer = io.BytesIO(zipped(PETS))
    with zipfile.ZipFile(buffer, "a") as zipper:
        info = zipfile.ZipInfo("cat/passwd.jpg")
        info.external_attr = mode << 16
        zipper.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveUnsafe, match=r"cat/passwd\.jpg"):
        scan(archive(buffer.getvalue()), limits=LIMITS)


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"D",
    ],
)
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_links_and_devices_are_refused(archive, kind, tar_format):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        info = tarfile.TarInfo("cat/passwd.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ArchiveUnsafe, match=r"cat/passwd\.jpg"):
        scan(archive(buffer.getvalue()), limits=LIMITS)


def test_sparse_files_of_pax_are_refused(archive):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("cat/1.jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
        tar.addfile(info)
    with pytest.raises(ArchiveUnsafe, match="sparse"):
        scan(archive(buffer.getvalue()), limits=LIMITS)


def test_encrypted_members_are_refused(archive):
    packed = bytearray(zipped({"cat/1.jpg": b"x"}))
    packed[packed.rindex(b"PK\1\2") + 8] |= 1
    with pytest.raises(ArchiveUnsafe, match="encrypted"):
        scan(archive(bytes(packed)), limits=LIMITS)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_in_zips_say_what_to_use(archive, method):
    with pytest.raises(ArchiveUnreadable, match="use deflate or none"):
        scan(archive(zipped(PETS, method=method)), limits=LIMITS)


# Attacks by size


@each_packer
def test_limits_hold_to_the_byte(archive, pack):
    path = archive(pack({"a/1.jpg": b"x" * 10, "b/1.jpg": b"x" * 20}))
    assert scan(path, limits=ArchiveLimits(members=2, unpacked_bytes=30, image_bytes=20)).members
    with pytest.raises(ArchiveUnsafe, match=r"1 at most|more than 1 members"):
        scan(path, limits=ArchiveLimits(members=1))
    with pytest.raises(ArchiveUnsafe, match=r"'b/1\.jpg' would bring the unpacked size over 29"):
        scan(path, limits=ArchiveLimits(unpacked_bytes=29))
    with pytest.raises(ArchiveUnsafe, match=r"'b/1\.jpg' is an image of 20 bytes, 19 at most"):
        scan(path, limits=ArchiveLimits(image_bytes=19))


def test_names_of_great_length_together_are_refused(archive, monkeypatch):
    monkeypatch.setattr("storage.archives.listing.NAME_BYTES", 30)
    assert unpacked(archive(zipped(dict.fromkeys(["cat/1234567.jpg", "dog/1234567.jpg"], b"x"))))
    with pytest.raises(ArchiveUnsafe, match="length of all names"):
        unpacked(archive(zipped(dict.fromkeys(["cat/1234567.jpg", "dog/12345678.jpg"], b"x"))))


def test_hand_made_zips_are_read_where_they_are_true(archive):
    """So that the ones below are refused for what is wrong with them."""
    name, data = b"cat/1.jpg", b"miau"
    made = whole_zip(
        local(name, data, size=4, crc=zlib.crc32(data)), entry(name, size=4, compressed=4, crc=zlib.crc32(data)), 1
    )
    assert unpacked(archive(made)) == {"cat/1.jpg": b"miau"}


@pytest.mark.parametrize("said", [1_000_000, 1_000, 70_000])
def test_a_million_entries_are_refused_in_little_memory_whatever_the_end_says(archive, said):
    directory = b"".join(entry(b"a/%06d.jpg" % number) for number in range(1_000_000))
    path = archive(whole_zip(local(b"a/1.jpg", bytes(100)), directory, said))

    def refuse() -> None:
        with pytest.raises((ArchiveUnsafe, ArchiveUnreadable), match=r"1,000,000 members|other entries than it says"):
            scan(path, limits=LIMITS)

    assert peak_bytes(refuse) < 32 << 20


def test_overlapping_entries_are_refused(archive):
    kernel = zlib.compress(b"\0" * 100_000, wbits=-15)
    names = [b"cat/%03d.jpg" % number for number in range(100)]
    crc = zlib.crc32(b"\0" * 100_000)
    directory = b"".join(
        entry(name, size=100_000, compressed=len(kernel), method=8, crc=crc, header=0) for name in names
    )
    with pytest.raises(ArchiveUnsafe, match="overlap"):
        scan(archive(whole_zip(local(names[0], kernel, method=8), directory, len(names))), limits=LIMITS)


def test_a_ratio_bomb_stops_at_its_declared_size(archive):
    zeros = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(1 << 8)) + zeros.flush()
    name = b"cat/1.jpg"
    made = whole_zip(local(name, bomb, size=1000, method=8), entry(name, size=1000, compressed=len(bomb), method=8), 1)
    path = archive(made)

    def refuse() -> None:
        with pytest.raises(ArchiveUnsafe, match=r"'cat/1\.jpg' unpacks to more than it declares"):
            unpacked(path)

    assert peak_bytes(refuse) < 8 << 20


@pytest.mark.parametrize("size", [3, 5, 0])
@pytest.mark.parametrize("method", [0, 8])
def test_lying_sizes_are_found(archive, method, size):
    name, data = b"cat/1.jpg", b"miau"
    stored = data if method == 0 else zlib.compress(data, wbits=-15)
    crc = zlib.crc32(data)
    made = whole_zip(
        local(name, stored, size=size, method=method, crc=crc),
        entry(name, size=size, compressed=len(stored), method=method, crc=crc),
        1,
    )
    with pytest.raises((ArchiveUnsafe, ArchiveUnreadable), match=r"cat/1\.jpg"):
        unpacked(archive(made))


def test_names_that_differ_from_the_directory_are_found(archive):
    packed = zipped({"cat/1.jpg": b"miau"})
    with pytest.raises(ArchiveUnsafe, match="another name"):
        unpacked(archive(packed.replace(b"cat/1.jpg", b"dog/1.jpg", 1)))


def test_data_before_a_zip_is_refused(archive):
    with pytest.raises(ArchiveUnreadable, match="other data"):
        scan(archive(b"PK\3\4 a picture, say" + zipped(PETS)), limits=LIMITS)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_tar_header_that_claims_gigabytes_is_refused_unread(archive, kind):
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 7 << 30
    path = archive(info.tobuf() + bytes(4 << 20))

    def refuse() -> None:
        with pytest.raises(ArchiveUnsafe, match="headers of more than"):
            scan(path, limits=LIMITS)

    assert peak_bytes(refuse) < 2 << 20


def test_headers_without_end_before_one_tar_member_are_refused(archive):
    info = tarfile.TarInfo("g")
    info.type, info.size = tarfile.XGLTYPE, 11
    with pytest.raises(ArchiveUnsafe, match="headers of more than"):
        scan(archive(gzip.compress((info.tobuf() + b"11 path=a/b".ljust(512, b"\0")) * 10_000)), limits=LIMITS)


@pytest.mark.parametrize("size", [b"\x80" + b"\xff" * 11, b"\x80\0\0\0\0\0\0\x10\0\0\0\0"])
def test_a_tar_member_of_more_than_the_limit_is_refused_unread(archive, size):
    block = bytearray(tarred({"a/1.jpg": b""})[:512])
    block[124:136], block[148:156] = size, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(ArchiveUnsafe, match="unpacked size"):
        scan(archive(gzip.compress(bytes(block))), limits=LIMITS)


def test_negative_tar_sizes_are_damage(archive):
    block = bytearray(tarred({"a/1.jpg": b""})[:512])
    block[124:136], block[148:156] = b"\xff" * 12, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(ArchiveUnreadable, match="no number"):
        scan(archive(bytes(block)), limits=LIMITS)


def test_an_xz_that_wants_gigabytes_to_unpack_is_refused(archive):
    packed = bytearray(lzma.compress(tarred(PETS), preset=0))
    assert packed[12:16] == bytes((2, 0, 0x21, 1))  # block header: its size, flags, LZMA2, one byte of properties
    packed[16] = 40  # a dictionary of 4 GiB
    packed[20:24] = struct.pack("<L", zlib.crc32(packed[12:20]))
    with pytest.raises(ArchiveUnreadable, match="Memory usage limit"):
        scan(archive(bytes(packed)), limits=LIMITS)
