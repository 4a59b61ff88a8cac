"""Ingestion: what stays of a batch, on which side, and why the rest is left out."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image as Picture

from storage.blobs import shards
from storage.blobs.directory import DirectoryBlobs
from storage.blobs.pack import SALT
from storage.domain import Batch, BatchStatus, Image, Reject, Split, new_id, now
from storage.errors import BatchInvalid
from storage.settings import Settings
from tests.patterns import SIZE, picture
from tests.storage.packing import Files, tarred, zipped
from trainer.ingestion.archive import ingest_archive
from trainer.ingestion.splits import Ingested, data_digest, settle
from trainer.networks.pictures import Form
from trainer.reporting import Report, SilentReport

FORM = Form(channels=3, image_size=SIZE)


def at(fraction: float, *, name: str = "") -> str:
    """A digest that lies at a fraction of the hash's range; the name makes it one of its own."""
    return f"{int(fraction * 16**8):08x}" + hashlib.sha256(f"{fraction} {name}".encode()).hexdigest()[8:]


def image(digest: str, label: str = "basil", *, split: Split | None = None, name: str | None = None) -> Image:
    return Image(
        id=new_id(),
        batch_id="batch",
        label=label,
        filename=name or f"{label}/{digest[:8]}.png",
        digest=digest,
        size=100,
        split=split,
    )


def settled(*images: Image, rejects: tuple[Reject, ...] = (), labels=None, max_bad_share: float = 0.1) -> Ingested:
    labels = {image.label for image in images} if labels is None else labels
    return settle(images, rejects, labels=labels, max_bad_share=max_bad_share)


def sides(found: Ingested) -> dict[str, Split | None]:
    return {image.digest: image.split for image in found.images}


def on(side: Split, found: Ingested) -> set[str]:
    return {image.digest for image in found.images if image.split is side}


def test_an_image_that_comes_twice_stays_once_and_the_rest_say_what_they_repeat():
    found = settled(
        image(at(0.5), name="basil/b.png"),
        image(at(0.5), name="basil/a.png"),
        image(at(0.5), name="basil/c.png"),
        image(at(0.7), name="basil/d.png"),
    )
    assert sorted(image.filename for image in found.images) == ["basil/a.png", "basil/d.png"]
    assert sorted((reject.file, reject.reason) for reject in found.rejects) == [
        ("basil/b.png", "the same image as basil/a.png"),
        ("basil/c.png", "the same image as basil/a.png"),
    ]


def test_one_image_under_two_labels_stays_under_one_and_the_reason_says_so():
    found = settled(
        image(at(0.5), "basil", name="basil/x.png"),
        image(at(0.5), "chive", name="chive/x.png"),
        *(
            image(at(part), label)
            for label, parts in {"basil": (0.1, 0.6), "chive": (0.2, 0.7)}.items()
            for part in parts
        ),
    )
    assert [(reject.file, reject.reason) for reject in found.rejects] == [
        ("chive/x.png", "another label for the same image as basil/x.png")
    ]
    assert [image.label for image in found.images if image.digest == at(0.5)] == ["basil"]


@pytest.mark.parametrize("label_of_the_test_side", ["basil", "chive"])
@pytest.mark.parametrize("other", [Split.TRAIN, None])
def test_an_image_on_both_sides_is_measured_on_and_never_learned_from(label_of_the_test_side, other):
    found = settled(
        image(at(0.5), "basil", split=other, name="a-comes-first.png"),
        image(at(0.5), label_of_the_test_side, split=Split.TEST, name="z-comes-last.png"),
        *(image(at(part), split=Split.TRAIN) for part in (0.1, 0.2)),
        *(image(at(part), "chive", split=Split.TRAIN) for part in (0.3, 0.4)),
    )
    assert sides(found)[at(0.5)] is Split.TEST
    assert [reject.file for reject in found.rejects] == ["a-comes-first.png"]


def test_duplicates_are_not_held_against_the_share_of_unusable_files():
    copies = [image(at(0.5), name=f"basil/{number}.png") for number in range(50)]
    found = settled(*copies, image(at(0.9)), max_bad_share=0)
    assert len(found.images) == 2
    assert len(found.rejects) == 49


def test_images_whose_hash_lies_in_the_first_fifth_of_the_range_are_measured_on():
    under = [at(fraction) for fraction in (0.0, 0.05, 0.1, 0.1999)]
    over = [at(fraction) for fraction in (0.2001, 0.25, 0.5, 0.9999)]
    found = settled(*map(image, under + over))
    assert on(Split.TEST, found) == set(under)
    assert on(Split.TRAIN, found) == set(over)


def test_each_class_is_split_for_itself():
    digests = {label: [hashlib.sha256(f"{label} {n}".encode()).hexdigest() for n in range(200)] for label in "abc"}
    found = settled(*(image(digest, label) for label, members in digests.items() for digest in members))
    expected = {digest for members in digests.values() for digest in members if int(digest[:8], 16) / 16**8 < 0.2}
    assert on(Split.TEST, found) == expected
    assert 0.1 < len(expected) / 600 < 0.3


def test_the_smallest_hash_is_measured_on_where_none_is_small():
    found = settled(*(image(at(fraction)) for fraction in (0.9, 0.3, 0.7)))
    assert on(Split.TEST, found) == {at(0.3)}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_one_image_is_left_to_learn_from_where_all_hashes_are_small(count):
    digests = [at(0.01 * position) for position in range(count)]
    found = settled(*map(image, reversed(digests)))
    assert on(Split.TRAIN, found) == {digests[-1]}


def test_a_split_that_came_with_the_images_is_kept_against_their_hashes():
    found = settled(
        image(at(0.01), split=Split.TRAIN),
        image(at(0.02), split=Split.TRAIN),
        image(at(0.8), split=Split.TEST),
        image(at(0.9), split=Split.TEST),
    )
    assert on(Split.TRAIN, found) == {at(0.01), at(0.02)}


def test_images_without_a_side_are_learned_from_where_the_class_brought_test_images():
    found = settled(image(at(0.01)), image(at(0.02), split=Split.TRAIN), image(at(0.9), split=Split.TEST))
    assert on(Split.TRAIN, found) == {at(0.01), at(0.02)}


def test_an_image_given_for_training_stays_there_while_others_are_undecided():
    given = [at(fraction) for fraction in (0.01, 0.02, 0.03)]
    found = settled(*(image(digest, split=Split.TRAIN) for digest in given), image(at(0.8)), image(at(0.9)))
    assert on(Split.TEST, found) == {at(0.8)}


def test_undecided_images_go_to_the_test_side_to_the_last_where_others_were_given_for_training():
    found = settled(image(at(0.9), split=Split.TRAIN), image(at(0.01)), image(at(0.02)))
    assert on(Split.TEST, found) == {at(0.01), at(0.02)}


def test_a_class_given_for_training_alone_is_measured_on_some_of_it_all_the_same():
    found = settled(*(image(at(fraction), split=Split.TRAIN) for fraction in (0.01, 0.02, 0.8)))
    assert on(Split.TEST, found) == {at(0.01), at(0.02)}


def test_every_class_has_both_sides_and_no_image_is_on_both_whatever_comes():
    refused: list[BatchInvalid] = []
    for seed in range(200):
        chance = Random(seed)
        count = chance.randint(4, 30)
        images = [
            image(
                at(chance.choice((0.05, 0.1, 0.3, 0.5, 0.7)), name=str(chance.randrange(6))),
                chance.choice("ab"),
                split=chance.choice((None, None, Split.TRAIN, Split.TEST)),
                name=f"{number}.png",
            )
            for number in range(count)
        ]
        try:
            found = settled(*images)
        except BatchInvalid as fault:
            refused.append(fault)
            continue
        assert len({image.digest for image in found.images}) == len(found.images)
        assert len(found.images) + len(found.rejects) == count
        for label in {image.label for image in images}:
            assert {image.split for image in found.images if image.label == label} == {Split.TRAIN, Split.TEST}
    assert 0 < len(refused) < 100
    assert all(fault.extra["classes"] for fault in refused)


OTHERS = [image(at(fraction), "chive") for fraction in (0.1, 0.6, 0.7)]


@pytest.mark.parametrize(
    "images",
    [[], [image(at(0.5))], [image(at(0.5), name="one.png"), image(at(0.5), name="two.png")]],
    ids=["no usable image", "one image", "one image twice"],
)
def test_a_class_of_fewer_than_two_images_refuses_the_batch_and_is_named(images):
    with pytest.raises(BatchInvalid, match="basil") as refused:
        settled(*OTHERS, *images, labels={"basil", "chive"})
    assert refused.value.extra["classes"] == ["basil"]
    assert "chive" not in refused.value.detail


@pytest.mark.parametrize(
    "images",
    [
        [image(at(0.4), split=Split.TEST), image(at(0.5), split=Split.TEST)],
        [
            image(at(0.4), split=Split.TEST, name="a.png"),
            image(at(0.4), split=Split.TRAIN, name="b.png"),
            image(at(0.5), split=Split.TEST, name="c.png"),
        ],
    ],
    ids=["all given for testing", "its only training image is a test image too"],
)
def test_a_class_without_a_training_image_refuses_the_batch_and_is_named(images):
    with pytest.raises(BatchInvalid, match="basil") as refused:
        settled(*OTHERS, *images)
    assert refused.value.extra["classes"] == ["basil"]
    assert "test side" in refused.value.detail


def rejects_of(count: int) -> tuple[Reject, ...]:
    return tuple(Reject(f"bad-{number}.png", f"fault {number}") for number in range(count))


def test_too_large_a_share_of_bad_files_refuses_the_batch_with_the_numbers_and_some_names():
    with pytest.raises(BatchInvalid) as refused:
        settled(*(image(at(0.01 * number)) for number in range(30)), rejects=rejects_of(10), max_bad_share=0.2)
    for said in ("10 of 40", "0.2", "bad-0.png: fault 0"):
        assert said in refused.value.detail
    assert len(refused.value.detail) < 500


def test_just_as_many_bad_files_as_permitted_are_named_and_left_out():
    found = settled(*(image(at(0.01 * number)) for number in range(30)), rejects=rejects_of(10), max_bad_share=0.25)
    assert found.rejects == rejects_of(10)
    assert len(found.images) == 30


def test_a_batch_of_bad_files_alone_is_refused_whatever_share_is_permitted():
    with pytest.raises(BatchInvalid, match="basil"):
        settled(rejects=rejects_of(3), labels={"basil"}, max_bad_share=1.0)


def test_the_digest_does_not_depend_on_order_names_or_ids():
    images = [
        image(at(0.09 * number), "basil" if number % 2 else "chive", name=f"{number}.png") for number in range(10)
    ]
    again = [image(one.digest, one.label, name=f"other-{one.filename}") for one in images]
    Random(1).shuffle(again)
    found = settled(*images)
    assert settled(*again).digest == found.digest
    assert data_digest(found.images) == data_digest(reversed(found.images)) == found.digest


@pytest.mark.parametrize(
    "other",
    [
        image(at(0.5), "chive", split=Split.TRAIN),
        image(at(0.5), "basil", split=Split.TEST),
        image(at(0.6), "basil", split=Split.TRAIN),
    ],
    ids=["label", "side", "content"],
)
def test_the_digest_tells_labels_sides_and_contents_apart(other):
    rest = [image(at(0.1), split=Split.TEST), image(at(0.2), "chive", split=Split.TRAIN)]
    assert data_digest([*rest, image(at(0.5), split=Split.TRAIN)]) != data_digest([*rest, other])


def test_the_digest_tells_apart_which_image_bears_which_label():
    one, two = at(0.3), at(0.4)
    straight = [image(one, "basil", split=Split.TRAIN), image(two, "chive", split=Split.TRAIN)]
    crossed = [image(two, "basil", split=Split.TRAIN), image(one, "chive", split=Split.TRAIN)]
    assert data_digest(straight) != data_digest(crossed)


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "blobs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "attempt"
    made.mkdir()
    return made


def batch_of(archive: bytes, blobs: DirectoryBlobs) -> Batch:
    digest = blobs.put(archive)
    return Batch(
        id=new_id(),
        model_id=new_id(),
        status=BatchStatus.CLOSED,
        archive=digest,
        archive_kind="zip",
        fingerprint=digest,
        classes=(),
        reject_count=0,
        digest=None,
        created_at=now(),
    )


@pytest.fixture(params=["one process", "several"])
def processes(request, monkeypatch) -> int:
    """How many may decode; several do so even where it is not worth their start."""
    if request.param == "one process":
        return 1
    monkeypatch.setattr("trainer.ingestion.archive._SMALL", 0)
    return 2


def content(blobs: DirectoryBlobs, image: Image) -> bytes:
    """The file of an image, out of its pack."""
    assert image.pack is not None
    assert image.offset is not None
    return next(iter(blobs.parts(image.pack, [(image.offset, image.size)])))


def ingested(archive: bytes, *, blobs, folder, processes: int = 1, report: Report | None = None, **settings: Any):
    batch = batch_of(archive, blobs)
    return ingest_archive(
        batch,
        blobs=blobs,
        settings=Settings(home=folder, **settings),
        processes=processes,
        form=FORM,
        folder=folder,
        report=report or SilentReport(),
    )


def stored(files: Files) -> bytes:
    """A zip archive in which images lie as they are, which is what most make of JPEG files."""
    return zipped(files, method=zipfile.ZIP_STORED)


GOOD = {f"{label}/{number}.png": picture(label, number) for label in ("basil", "chive") for number in range(40)}
BAD = {
    "basil/empty.png": b"",
    "basil/text.png": b"<html>not found</html>",
    "chive/half.png": picture("chive", 999)[:200],
    "notes.txt": b"taken on a Monday",
}


each_pack = pytest.mark.parametrize("pack", [zipped, stored, tarred], ids=["deflated", "stored", "tar"])


@each_pack
def test_an_archive_s_images_are_stored_and_described(blobs, folder, processes, pack):
    found = ingested(pack(GOOD), blobs=blobs, folder=folder, processes=processes)
    assert {image.filename: content(blobs, image) for image in found.images} == GOOD
    for image_ in found.images:
        assert image_.digest == hashlib.sha256(GOOD[image_.filename]).hexdigest()
        assert image_.label == image_.filename.split("/")[0]
        assert image_.size == len(GOOD[image_.filename])
        assert (image_.split is Split.TEST) == (int(image_.digest[:8], 16) / 16**8 < 0.2)
    assert len({image.id for image in found.images}) == len(GOOD)
    assert found.digest == data_digest(found.images)
    assert found.rejects == ()


def test_images_of_a_class_that_the_archive_calls_by_its_name_are_held_by_its_label(blobs, folder):
    batch = replace(batch_of(zipped(GOOD), blobs), labels={"basil": "ocimum"})
    options = {"blobs": blobs, "settings": Settings(home=folder), "form": FORM, "folder": folder}
    found = ingest_archive(batch, processes=1, report=SilentReport(), **options)
    assert {(image.filename.split("/")[0], image.label) for image in found.images} == {
        ("basil", "ocimum"),
        ("chive", "chive"),
    }


@each_pack
def test_files_that_are_no_images_are_named_with_their_fault_and_not_stored(blobs, folder, processes, pack):
    archive = pack(GOOD | BAD)
    found = ingested(archive, blobs=blobs, folder=folder, processes=processes)
    reasons = {reject.file: reject.reason for reject in found.rejects}
    assert reasons.keys() == BAD.keys() - {"notes.txt"}
    assert "empty" in reasons["basil/empty.png"]
    assert "not a JPEG" in reasons["basil/text.png"]
    assert "truncated" in reasons["chive/half.png"]
    (pack,) = found.packs
    assert pack.size == sum(map(len, GOOD.values()))
    assert len(blobs.get(pack.digest)) == SALT + pack.size
    assert {image.filename: content(blobs, image) for image in found.images} == GOOD
    shards_ = {image.shard for image in found.images}
    assert set(blobs.digests()) == shards_ | {pack.digest, hashlib.sha256(archive).hexdigest()}


@each_pack
def test_packs_are_bounded_and_one_of_which_nothing_stays_is_not_stored(blobs, folder, processes, monkeypatch, pack):
    monkeypatch.setattr("trainer.ingestion.originals.LARGEST", 10_000)
    largest = max(map(len, GOOD.values()))
    bad = {f"basil/a{number}.png": b"no image" * 2000 for number in range(3)}
    found = ingested(pack(bad | GOOD), blobs=blobs, folder=folder, processes=processes)
    assert {image.filename: content(blobs, image) for image in found.images} == GOOD
    assert 5 < len(found.packs) == len({image.pack for image in found.images})
    assert all(pack.size < 10_000 + largest for pack in found.packs)
    assert sum(pack.size for pack in found.packs) == sum(map(len, GOOD.values()))
    assert list(folder.iterdir()) == []


def test_the_same_archive_again_has_packs_of_its_own(blobs, folder):
    one, two = (ingested(zipped(GOOD), blobs=blobs, folder=folder) for _ in range(2))
    assert {image.pack for image in one.images} & {image.pack for image in two.images} == set()
    assert {image.shard for image in one.images} == {image.shard for image in two.images}


def test_members_may_be_listed_in_any_order_and_lie_far_apart(blobs, folder, processes):
    between = {f"between/{number}.txt": bytes(3 << 20) for number in range(3)}  # more than is read at a time
    lying = [*GOOD.items()]
    for number, gap in enumerate(between.items()):
        lying.insert(20 * number + 7, gap)
    buffer = io.BytesIO(stored(lying))
    with zipfile.ZipFile(buffer, "a") as archive:
        Random(3).shuffle(archive.filelist)
        archive.writestr("chive/last.png", picture("chive", 1000))  # has the directory written anew
    found = ingested(buffer.getvalue(), blobs=blobs, folder=folder, processes=processes)
    files = GOOD | {"chive/last.png": picture("chive", 1000)}
    assert {image.filename: content(blobs, image) for image in found.images} == files
    assert [FORM.row(files[image.filename], max_pixels=10_000) for image in found.images] == [
        next(iter(shards.read(blobs, image.shard, [image.row], row_bytes=FORM.row_bytes)))[1] for image in found.images
    ]


def test_each_image_is_packed_as_it_is_stored(blobs, folder):
    found = ingested(zipped(GOOD | BAD), blobs=blobs, folder=folder)
    for image_ in found.images:
        assert image_.shard is not None
        assert image_.row is not None
        ((_, row),) = shards.read(blobs, image_.shard, [image_.row], row_bytes=FORM.row_bytes)
        assert bytes(row) == FORM.row(GOOD[image_.filename], max_pixels=SIZE * SIZE)
    assert len({image_.shard for image_ in found.images if image_.split is Split.TRAIN}) == 1
    assert len({image_.shard for image_ in found.images}) == 2


def test_an_image_of_too_many_pixels_is_named_and_left_out(blobs, folder):
    large = io.BytesIO()
    Picture.new("RGB", (SIZE, SIZE + 1)).save(large, "PNG")
    archive = zipped(GOOD | {"basil/large.png": large.getvalue()})
    found = ingested(archive, blobs=blobs, folder=folder, max_image_pixels=SIZE * SIZE)
    (reject,) = found.rejects
    assert reject.file == "basil/large.png"
    assert "16 × 17 pixels" in reject.reason


def test_the_archive_stays_where_it_was_and_leaves_nothing_in_the_scratch_folder(blobs, folder):
    archive = zipped(GOOD)
    ingested(archive, blobs=blobs, folder=folder)
    assert blobs.get(hashlib.sha256(archive).hexdigest()) == archive
    assert list(folder.iterdir()) == []


def test_a_tar_of_the_same_files_is_the_same_batch(blobs, folder):
    zipped_, tarred_ = (ingested(pack(GOOD), blobs=blobs, folder=folder) for pack in (zipped, tarred))
    assert zipped_.digest == tarred_.digest


def test_the_number_of_processes_changes_nothing(blobs, folder, monkeypatch):
    monkeypatch.setattr("trainer.ingestion.archive._SMALL", 0)

    def described(found: Ingested) -> tuple[Any, ...]:
        images = [(one.filename, one.label, one.digest, one.split, one.shard, one.row) for one in found.images]
        return images, found.rejects, found.digest

    archive = zipped(GOOD | BAD | {"chive/again.png": GOOD["basil/3.png"]})
    one, four = (ingested(archive, blobs=blobs, folder=folder, processes=count) for count in (1, 4))
    assert described(one) == described(four)
    assert ("chive/again.png", "another label for the same image as basil/3.png") in [
        (reject.file, reject.reason) for reject in four.rejects
    ]


def test_sides_that_the_archive_brings_are_kept(blobs, folder):
    names = {f"{side}/{label}/{n}.png": (label, n) for side in Split for label in ("basil", "chive") for n in range(6)}
    archive = zipped({name: picture(label, n + 50 * name.startswith("test")) for name, (label, n) in names.items()})
    found = ingested(archive, blobs=blobs, folder=folder)
    assert {image.filename: image.split for image in found.images} == {
        name: Split(name.split("/")[0]) for name in names
    }
    assert {image.label for image in found.images} == {"basil", "chive"}


class Counting(SilentReport):
    def __init__(self) -> None:
        self.counted: list[tuple[int, int]] = []

    def progress(self, **state: Any) -> None:
        self.counted.append((state["step"], state["steps"]))


def test_every_file_is_counted_as_it_is_done(blobs, folder, processes):
    report = Counting()
    ingested(zipped(GOOD | BAD), blobs=blobs, folder=folder, processes=processes, report=report)
    images = len(GOOD) + len(BAD) - 1  # the text file was never to be decoded
    assert report.counted == [(done, images) for done in range(1, images + 1)]


def test_a_class_of_an_archive_without_any_readable_image_is_named(blobs, folder):
    with pytest.raises(BatchInvalid, match="dill") as refused:
        ingested(zipped(GOOD | {f"dill/{number}.png": b"no image" for number in range(3)}), blobs=blobs, folder=folder)
    assert refused.value.extra["classes"] == ["dill"]


def test_an_archive_of_too_many_bad_files_is_refused_with_the_numbers(blobs, folder):
    with pytest.raises(BatchInvalid, match=r"3 of 83 .* 0\.03"):
        ingested(zipped(GOOD | BAD), blobs=blobs, folder=folder, max_bad_share=0.03)


def test_of_two_copies_the_one_with_a_side_counts() -> None:
    twice = at(0.01)  # would be on the test side if its content decided
    found = settled(
        image(twice, name="a.png"), image(twice, name="z.png", split=Split.TRAIN), image(at(0.02)), image(at(0.9))
    )
    assert sides(found)[twice] is Split.TRAIN
