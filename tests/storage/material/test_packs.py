"""Packs: many image files in one blob, written anew when some of them are to go, whatever interrupts that."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from storage.blobs.pack import SALT, PackWriter
from storage.blobs.store import BlobStore
from storage.domain import Image, Pack, Split, new_id
from storage.errors import BlobDamaged, BlobMissing, ImageNotFound
from storage.maintenance import disposal
from storage.maintenance.disposal import close_holes, dispose
from storage.material import batches, images, packs, references
from storage.material.packs import original, with_holes
from tests.storage.worlds import World

FILES = [random.Random(number).randbytes(100 + 37 * number) for number in range(12)]


@dataclass
class Shelf:
    """A batch of twelve files in a pack, in a database and a store."""

    world: World
    blobs: BlobStore
    scratch: Path
    batch_id: str

    def images(self) -> tuple[Image, ...]:
        return tuple(sorted(self.world.read(images.of_batch, self.batch_id), key=lambda image: int(image.filename)))

    def read(self, image: Image) -> bytes:
        return original(image, database=self.world.database, blobs=self.blobs)

    def forget(self, *numbers: int) -> tuple[str, ...]:
        going = [image.id for image in self.images() if int(image.filename) in numbers]
        assert len(going) == len(numbers)
        return self.world.write(images.forget, going)

    def dispose(self) -> None:
        dispose(database=self.world.database, blobs=self.blobs, scratch=self.scratch)

    def close_holes(self, digest: str) -> None:
        close_holes(digest, database=self.world.database, blobs=self.blobs, scratch=self.scratch)

    def stored(self) -> bytes:
        return b"".join(self.blobs.get(digest) for digest in self.blobs.digests())


def written(path: Path, files: list[bytes]) -> tuple[PackWriter, list[int]]:
    writer = PackWriter(path)
    offsets = [writer.add(data) for data in files]
    writer.close()
    return writer, offsets


@pytest.fixture
def shelf(world: World, blobs: BlobStore, tmp_path: Path) -> Shelf:
    batch = world.upload(world.create(), "basil")
    writer, offsets = written(tmp_path / "pack", FILES)
    pack = writer.store(blobs)
    rows = [
        Image(new_id(), batch.id, "basil", str(number), sha256(data).hexdigest(), len(data), Split.TRAIN)
        for number, data in enumerate(FILES)
    ]
    placed = [replace(image, pack=pack.digest, offset=offset) for image, offset in zip(rows, offsets, strict=True)]
    world.write(batches.record_ingestion, batch.id, ingested=placed, rejects=(), digest="0" * 64, written=[pack])
    return Shelf(world, blobs, tmp_path / "scratch", batch.id)


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_pack_is_whole_where_the_system_writes_less_than_it_was_given(tmp_path, monkeypatch, most):
    whole = os.writev

    def partly(descriptor: int, pieces: list[memoryview]) -> int:
        return whole(descriptor, [memoryview(b"".join(pieces))[:most]])

    monkeypatch.setattr(os, "writev", partly)
    files = [b"", b"one", b"", b"three", bytes(range(256)) * 9, b""]
    writer, offsets = written(tmp_path / "pack", files)
    content = writer.path.read_bytes()
    assert [content[at : at + len(data)] for at, data in zip(offsets, files, strict=True)] == files
    assert len(content) == SALT + sum(map(len, files))


def test_each_file_comes_out_as_it_went_in(shelf: Shelf):
    assert [shelf.read(image) for image in shelf.images()] == FILES
    assert shelf.world.read(with_holes) == ()
    assert len(list(shelf.blobs.digests())) == 1


def test_a_file_that_has_a_blob_of_its_own_is_read_too(shelf: Shelf):
    alone = Image(new_id(), shelf.batch_id, "basil", "99", shelf.blobs.put(b"alone"), 5, None)
    assert shelf.read(alone) == b"alone"


def test_no_two_packs_are_the_same_blob(shelf: Shelf, tmp_path: Path):
    one, two = (written(tmp_path / name, FILES)[0].store(shelf.blobs) for name in ("one", "two"))
    assert one.digest != two.digest
    assert one.size == two.size == sum(map(len, FILES))


def test_a_damaged_file_is_told_from_the_others(shelf: Shelf, tmp_path: Path):
    image = shelf.images()[3]
    moved = replace(image, offset=(image.offset or 0) + 1)
    with pytest.raises(BlobDamaged, match=image.digest):
        shelf.read(moved)


def test_a_pack_that_is_gone_is_missing(shelf: Shelf):
    image = shelf.images()[0]
    shelf.blobs.delete(str(image.pack))
    with pytest.raises(BlobMissing, match=str(image.pack)):
        shelf.read(image)


@pytest.mark.parametrize("going", [(0,), (11,), (5,), (0, 1, 2), (3, 5, 6, 11), tuple(range(11))])
def test_a_forgotten_file_is_gone_from_the_store_and_the_others_stay(shelf: Shelf, going: tuple[int, ...]):
    before = shelf.images()[0].pack
    released = shelf.forget(*going)
    assert released == (before,)
    assert shelf.world.read(with_holes) == (before,)
    shelf.dispose()
    staying = [number for number in range(12) if number not in going]
    assert [shelf.read(image) for image in shelf.images()] == [FILES[number] for number in staying]
    stored = shelf.stored()
    assert not any(FILES[number] in stored for number in going)
    assert len(stored) == SALT + sum(len(FILES[number]) for number in staying)
    assert shelf.world.read(with_holes) == ()
    assert shelf.world.rows()["packs"] == 1
    assert list(shelf.scratch.iterdir()) == []


def test_a_pack_goes_with_its_last_file(shelf: Shelf):
    shelf.forget(*range(12))
    shelf.dispose()
    assert list(shelf.blobs.digests()) == []
    assert shelf.world.rows()["packs"] == 0


def test_what_nobody_forgot_is_not_touched(shelf: Shelf):
    before = set(shelf.blobs.digests())
    shelf.world.write(references.release, before)
    shelf.dispose()
    shelf.close_holes(before.copy().pop())
    shelf.close_holes("0" * 64)
    assert set(shelf.blobs.digests()) == before


def test_a_reader_that_knows_the_old_place_finds_the_new_one(shelf: Shelf):
    known = shelf.images()
    shelf.forget(4)
    shelf.dispose()
    assert [shelf.read(image) for image in known if image.filename != "4"] == FILES[:4] + FILES[5:]
    with pytest.raises(ImageNotFound):
        shelf.read(known[4])


class Killed(Exception):
    """The process ends here."""


STEPS: dict[str, Callable[[pytest.MonkeyPatch, type], None]] = {
    "before the new pack is stored": lambda patch, store: patch.setattr(store, "put_file", _killed),
    "before the new pack is durable": lambda patch, store: patch.setattr(store, "sync", _killed),
    "before the images are moved": lambda patch, store: patch.setattr(packs, "record", _killed),
    "before the old pack is deleted": lambda patch, store: patch.setattr(store, "delete", _killed),
}


def _killed(*_arguments: object, **_options: object) -> None:
    raise Killed


@pytest.mark.parametrize("step", STEPS)
def test_whatever_interrupts_it_no_file_is_lost_and_the_next_try_ends_it(shelf: Shelf, step: str, monkeypatch):
    released = shelf.forget(2, 7)
    with monkeypatch.context() as patch:
        STEPS[step](patch, type(shelf.blobs))
        with pytest.raises(Killed):
            shelf.dispose()
    staying = [data for number, data in enumerate(FILES) if number not in (2, 7)]
    assert [shelf.read(image) for image in shelf.images()] == staying
    assert shelf.world.read(with_holes) == released
    shelf.dispose()
    assert [shelf.read(image) for image in shelf.images()] == staying
    assert shelf.world.read(with_holes) == ()
    referred = {image.pack for image in shelf.images()}
    assert not any(FILES[gone] in shelf.blobs.get(str(pack)) for pack in referred for gone in (2, 7))
    assert not shelf.blobs.exists(*released)


def test_two_that_close_the_same_holes_leave_one_pack(shelf: Shelf, monkeypatch):
    (digest,) = shelf.forget(2, 7)
    move = disposal._move

    def late(*arguments, **options) -> None:
        monkeypatch.setattr(disposal, "_move", move)
        shelf.close_holes(digest)  # the other one, from beginning to end
        shelf.blobs.put_file(shelf.scratch / "again")  # and what this one had read before
        move(*arguments, **options)

    shelf.scratch.mkdir()
    (shelf.scratch / "again").write_bytes(shelf.blobs.get(digest))
    monkeypatch.setattr(disposal, "_move", late)
    shelf.close_holes(digest)
    (left,) = shelf.blobs.digests()
    assert {image.pack for image in shelf.images()} == {left}
    assert shelf.world.read(with_holes) == ()
    assert shelf.world.rows()["packs"] == 1


def test_whoever_comes_too_late_to_close_holes_finds_nothing_to_do(shelf: Shelf, monkeypatch):
    """The other one has moved every file and deleted the pack before this one could read it."""
    (digest,) = shelf.forget(2, 7)
    move = disposal._move

    def late(*arguments, **options) -> None:
        monkeypatch.setattr(disposal, "_move", move)
        shelf.close_holes(digest)
        move(*arguments, **options)

    monkeypatch.setattr(disposal, "_move", late)
    shelf.close_holes(digest)
    (left,) = shelf.blobs.digests()
    assert {image.pack for image in shelf.images()} == {left}
    assert shelf.world.rows()["packs"] == 1


def test_a_pack_that_is_lost_while_images_need_it_is_said_to_be(shelf: Shelf):
    (digest,) = shelf.forget(2, 7)
    shelf.blobs.delete(digest)
    with pytest.raises(BlobMissing, match=digest):
        shelf.close_holes(digest)


def test_what_is_forgotten_while_its_pack_is_moved_goes_with_the_next_try(shelf: Shelf, monkeypatch):
    (digest,) = shelf.forget(2)
    record = packs.record
    sync = type(shelf.blobs).sync

    def meanwhile(store) -> None:
        monkeypatch.setattr(type(shelf.blobs), "sync", sync)
        shelf.forget(9)
        sync(store)

    monkeypatch.setattr(type(shelf.blobs), "sync", meanwhile)
    shelf.close_holes(digest)
    assert record is packs.record
    assert len(shelf.world.read(with_holes)) == 1
    shelf.dispose()
    assert FILES[9] not in shelf.stored()
    assert [shelf.read(image) for image in shelf.images()] == [d for n, d in enumerate(FILES) if n not in (2, 9)]


def test_holes_are_looked_for_where_asked(shelf: Shelf):
    (digest,) = shelf.forget(1)
    assert shelf.world.read(with_holes, among=["0" * 64]) == ()
    assert shelf.world.read(with_holes, among=[digest]) == (digest,)
    assert shelf.world.read(with_holes, among=[]) == ()


def test_a_pack_that_is_cut_off_is_not_copied(shelf: Shelf, tmp_path: Path):
    last = shelf.images()[-1]
    with shelf.world.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE images SET size = size + 1 WHERE id = '{last.id}'")
    (digest,) = shelf.forget(1)
    with pytest.raises(BlobDamaged, match="where images should be"):
        shelf.close_holes(digest)
    assert shelf.blobs.exists(digest)
    assert [shelf.read(image) for image in shelf.images()[:-1]] == [FILES[0], *FILES[2:-1]]


def test_packs_are_known_by_digest_and_size(world: World):
    world.write(packs.record, [Pack("0" * 64, 5)])
    world.write(packs.record, [])
    assert world.read(with_holes) == ("0" * 64,)
