"""What archives are read as, with the standard library's writers as the oracle; attacks have their own file."""

import gzip
import io
import lzma
import random
import struct
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.archives.members import Member
from storage.archives.reading import ArchiveIndex, ArchiveLimits, read, scan
from storage.domain import ClassCount, Ignored, Split
from storage.errors import AccreteError, ArchiveUnreadable, BatchInvalid
from storage.settings import Settings
from tests.storage.packing import PACKERS, each_packer, tarred, zipped

LIMITS = ArchiveLimits()
PETS = {"cat/1.jpg": b"miau", "cat/2.png": b"", "dog/1.jpeg": b"wau" * 50_000, "dog/2.webp": bytes(range(256))}


def unpacked(path: Path) -> dict[str, bytes]:
    return {member.name: content.data for member, content in read(path, scan(path, limits=LIMITS))}


def places(index: ArchiveIndex) -> dict[str, tuple[str, Split | None]]:
    return {member.name: (member.label, member.split) for member in index.members}


# What is in it


@each_packer
def test_every_image_comes_back_with_its_bytes_and_class(archive, pack):
    path = archive(pack(PETS))
    index = scan(path, limits=LIMITS)
    assert index.kind == ("zip" if path.read_bytes().startswith(b"PK") else "tar")
    assert [(m.name, m.label, m.split, m.size) for m in index.members] == [
        (name, name.split("/")[0], None, len(data)) for name, data in PETS.items()
    ]
    assert index.classes == (ClassCount("cat", 2, 0), ClassCount("dog", 2, 0))
    assert index.rejects == ()
    assert [(member, content.data) for member, content in read(path, index)] == list(
        zip(index.members, PETS.values(), strict=True)
    )


letters = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"], exclude_characters="/\\"), max_size=60
)


@each_packer
@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(
    st.dictionaries(letters.map(lambda text: f"x/n{unicodedata.normalize('NFC', text)}.png"), st.binary(), min_size=1)
)
def test_any_names_and_bytes_survive_packing(archive, pack, files):
    assert unpacked(archive(pack(files))) == files


@each_packer
@pytest.mark.parametrize("around", ["", "flowers/", "./", "./flowers/"])
def test_train_and_test_folders_are_the_two_sides(archive, pack, around):
    index = scan(
        archive(pack({f"{around}{side}/{label}/1.jpg": b"x" for side in ("train", "test") for label in ("a", "b")})),
        limits=LIMITS,
    )
    assert {(m.label, m.split) for m in index.members} == {(x, side) for x in ("a", "b") for side in Split}
    assert index.classes == (ClassCount("a", 1, 1), ClassCount("b", 1, 1))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/1.jpg", "b/1.jpg"], {"a/1.jpg": ("a", None), "b/1.jpg": ("b", None)}),
        (["pets/a/1.jpg", "pets/b/1.jpg"], {"pets/a/1.jpg": ("a", None), "pets/b/1.jpg": ("b", None)}),
        (["pets/a/1.jpg", "pets/a/2.jpg"], {"pets/a/1.jpg": ("a", None), "pets/a/2.jpg": ("a", None)}),
        (["a/1.jpg", "a/2.jpg"], {"a/1.jpg": ("a", None), "a/2.jpg": ("a", None)}),
        (["train/1.jpg", "bus/1.jpg"], {"train/1.jpg": ("train", None), "bus/1.jpg": ("bus", None)}),
        (["a/b/c/d/1.jpg", "a/b/c/e/1.jpg"], {"a/b/c/d/1.jpg": ("d", None), "a/b/c/e/1.jpg": ("e", None)}),
        (["train/a/1.jpg", "train/b/1.jpg"], {"train/a/1.jpg": ("a", None), "train/b/1.jpg": ("b", None)}),
        (["Train/a/1.jpg", "Test/a/1.jpg"], {"Train/a/1.jpg": ("a", Split.TRAIN), "Test/a/1.jpg": ("a", Split.TEST)}),
    ],
)
def test_the_class_is_found_where_it_stands(archive, names, expected):
    assert places(scan(archive(zipped(dict.fromkeys(names, b"x"))), limits=LIMITS)) == expected


@each_packer
def test_bad_files_are_rejected_by_name_and_the_rest_is_used(archive, pack):
    strays = {
        "1.jpg": "not where an image is expected: class/image",
        "cat/scan.TIF": "no image that is read",
        "cat/phone.heic": "no image that is read",
        "cat/inner.zip": "an archive within the archive",
    }
    index = scan(archive(pack({**PETS, **dict.fromkeys(strays, b"x")})), limits=LIMITS)
    assert {reject.file: reject.reason for reject in index.rejects}.keys() == strays.keys()
    assert all(reject.reason.startswith(strays[reject.file]) for reject in index.rejects)
    assert {member.name for member in index.members} == PETS.keys()


@each_packer
def test_files_beside_the_images_are_ignored_and_told(archive, pack):
    beside = ["README.md", "LICENSE", "cat/notes.txt", "labels.csv", "cat/1.json", "dog/1.XML", "data.yaml"]
    index = scan(archive(pack({**PETS, **dict.fromkeys(beside, b"x")})), limits=LIMITS)
    assert {member.name for member in index.members} == PETS.keys()
    assert index.rejects == ()
    assert index.ignored == (Ignored("no image by its name", 7, tuple(beside[:5])),)


def test_a_name_that_says_nothing_is_worth_a_try(archive):
    names = ["cat/0001", "cat/1.jpg_large", "cat/IMG_2.jpeg.", "dog/photo.image"]
    assert places(scan(archive(zipped(dict.fromkeys(names, b"x"))), limits=LIMITS)) == {
        name: (name[:3], None) for name in names
    }


@each_packer
def test_what_operating_systems_leave_behind_is_ignored(archive, pack):
    litter = ["__MACOSX/cat/1.jpg", ".DS_Store", "cat/.hidden.jpg", "cat/Thumbs.db", ".git/a/1.jpg", "desktop.ini"]
    index = scan(archive(pack({**dict.fromkeys(litter, b"x"), **PETS})), limits=LIMITS)
    assert {member.name for member in index.members} == PETS.keys()
    assert index.rejects == ()
    assert {group.reason.partition(" ")[0]: group.count for group in index.ignored} == {"hidden:": 3, "written": 3}


def test_folders_are_no_images(archive, tmp_path):
    tree = tmp_path / "tree"
    for name, data in PETS.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    (tree / "empty.jpg").mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tree, arcname=".")
    assert unpacked(archive(buffer.getvalue())) == PETS
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipper:
        for path in [tree, *tree.rglob("*")]:
            zipper.write(path, path.relative_to(tree.parent))
    assert unpacked(archive(buffer.getvalue())) == {f"tree/{name}": data for name, data in PETS.items()}


@each_packer
def test_one_class_has_one_name_however_its_accents_are_written(archive, pack):
    composed, decomposed = (unicodedata.normalize(form, "Zürich/é") for form in ("NFC", "NFD"))
    index = scan(archive(pack({f"{composed}1.jpg": b"x", f"{decomposed}2.jpg": b"y"})), limits=LIMITS)
    assert index.classes == (ClassCount("Zürich", 2, 0),)


def test_a_zip_may_be_larger_than_its_32_bit_fields_and_stream(archive):
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.data += data
            return len(data)

    sink = Unseekable()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as zipper:
        for name, data in PETS.items():
            with zipper.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(data)
    assert unpacked(archive(bytes(sink.data))) == PETS


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("length", [4, 60, 61, 64, 65, 3000, 65_531])
def test_a_member_may_have_a_long_extra_field_before_its_data(archive, method, length):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, data in PETS.items():
            entry = zipfile.ZipInfo(name)
            entry.extra = struct.pack("<2H", 0xCAFE, length - 4) + bytes(length - 4)
            opened.writestr(entry, data, method)
    path = archive(buffer.getvalue())
    found = {member.name: content for member, content in read(path, scan(path, limits=LIMITS))}
    assert {name: content.data for name, content in found.items()} == PETS
    for content in found.values():
        if content.offset is not None:
            assert path.read_bytes()[content.offset :].startswith(content.data)
    assert {content.offset is None for content in found.values()} == {method == zipfile.ZIP_DEFLATED}


def test_a_zip_may_have_more_than_65535_members(archive):
    files = {f"{label}/{number}.jpg": b"" for label in "ab" for number in range(35_000)}
    index = scan(archive(zipped(files, method=zipfile.ZIP_STORED)), limits=LIMITS)
    assert index.classes == (ClassCount("a", 35_000, 0), ClassCount("b", 35_000, 0))


@pytest.mark.parametrize("streams", [b"", b"\0" * 8])
def test_an_xz_may_have_several_streams(archive, streams):
    data = tarred(PETS)
    assert unpacked(archive(streams.join([lzma.compress(data[:5000]), lzma.compress(data[5000:])]))) == PETS


def test_members_are_a_sequence(archive):
    members = scan(archive(zipped(PETS)), limits=LIMITS).members
    as_list = list(members)
    assert (len(members), members[2], members[-1]) == (4, as_list[2], as_list[-1])
    assert members[1:3] == as_list[1:3]
    assert as_list[0] in members
    with pytest.raises(IndexError):
        members[4]


def test_limits_are_the_settings():
    limits = ArchiveLimits.of(Settings(max_archive_members=5, max_unpacked_bytes=6, max_image_bytes=7, max_classes=8))
    assert limits == ArchiveLimits(members=5, unpacked_bytes=6, image_bytes=7, classes=8)
    assert ArchiveLimits.of(Settings()) == ArchiveLimits()


# Nothing to learn from


@pytest.mark.parametrize("names", [["readme.txt"], ["1.jpg"], ["a/b/c/d/1.tif"], [".hidden"]])
def test_an_archive_without_images_in_class_folders_says_what_was_expected(archive, names):
    with pytest.raises(BatchInvalid, match="expected class/image"):
        scan(archive(zipped(dict.fromkeys(names, b"x"))), limits=LIMITS)


def test_a_class_without_train_images_is_named(archive):
    names = ["train/a/1.jpg", "test/a/1.jpg", "test/ghost/1.jpg"]
    with pytest.raises(BatchInvalid, match="ghost") as refused:
        scan(archive(zipped(dict.fromkeys(names, b"x"))), limits=LIMITS)
    assert refused.value.extra["classes"] == ["ghost"]


def test_a_class_without_test_images_beside_others_that_have_some_is_named(archive):
    names = ["train/a/1.jpg", "test/a/1.jpg", "train/ghost/1.jpg"]
    with pytest.raises(BatchInvalid, match="ghost"):
        scan(archive(zipped(dict.fromkeys(names, b"x"))), limits=LIMITS)


def test_test_images_alone_are_not_trained_on(archive):
    with pytest.raises(BatchInvalid, match="no images under train/"):
        scan(archive(zipped({"test/a/1.jpg": b"x", "test/b/1.jpg": b"x"})), limits=LIMITS)


def test_too_many_classes(archive):
    path = archive(zipped({f"{number}/1.jpg": b"x" for number in range(5)}))
    assert len(scan(path, limits=ArchiveLimits(classes=5)).classes) == 5
    with pytest.raises(BatchInvalid, match="more than 4 classes"):
        scan(path, limits=ArchiveLimits(classes=4))


# Damage


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is no archive",
        b"\x89PNG\r\n\x1a\n" + bytes(2000),
        bytes(10_240),
        zipped({}),
        tarred({}),
        gzip.compress(b"", mtime=0),  # the time would be in the name of the test
        gzip.compress(b"not a tar" * 1000, mtime=0),
        b"\x1f\x8b" + bytes(100),
        b"BZh9" + bytes(100),
        b"\xfd7zXZ\0" + bytes(100),
        b"Rar!\x1a\x07\x01\0" + bytes(1000),
        b"7z\xbc\xaf\x27\x1c" + bytes(1000),
    ],
)
def test_what_is_no_archive_or_an_empty_one_is_unreadable(archive, data):
    with pytest.raises(ArchiveUnreadable):
        scan(archive(data), limits=LIMITS)


@each_packer
def test_a_truncated_archive_never_passes(archive, pack):
    whole = pack(PETS)
    content = len(whole.rstrip(b"\0"))
    cuts = {0, 1, 100, 600, content // 2, content - 200, content - 1}
    for cut in sorted(cut for cut in cuts if 0 <= cut < content):
        with pytest.raises(ArchiveUnreadable):
            unpacked(archive(whole[:cut]))


@each_packer
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(data=st.data())
def test_a_flipped_bit_never_changes_an_image(archive, pack, data):
    whole = bytearray(pack(PETS))
    at = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[at // 8] ^= 1 << at % 8
    try:
        found = list(read(path := archive(bytes(whole)), scan(path, limits=LIMITS)))
    except AccreteError:
        return
    if pack not in {PACKERS["tar"], PACKERS["tar gnu"]}:  # a plain tar has no checksum of its contents
        assert {content.data for _, content in found} <= set(PETS.values())


def test_random_bytes_after_a_true_start_only_fail_in_our_words(archive):
    source = random.Random(5)
    for start in (b"PK\3\4", b"PK\5\6", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", tarred(PETS)[:700]):
        for _ in range(50):
            with pytest.raises(AccreteError):
                unpacked(archive(start + source.randbytes(source.randrange(3000))))


def test_reading_may_stop_at_any_member(archive):
    path = archive(PACKERS["tar.gz"](PETS))
    images = read(path, scan(path, limits=LIMITS))
    member, content = next(images)
    assert (member.filename, content.data, content.offset) == ("1.jpg", b"miau", None)
    assert isinstance(member, Member)
    images.close()  # type: ignore[attr-defined]
