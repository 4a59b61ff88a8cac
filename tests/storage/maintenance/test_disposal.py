"""Blobs that nobody needs any more: named with the last reference, deleted after it, never under somebody's hands."""

import os
import threading
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from sqlalchemy import Connection, update

from storage.blobs.directory import DirectoryBlobs
from storage.blobs.opening import open_blobs
from storage.blobs.pack import PackWriter
from storage.blobs.store import BlobStore
from storage.database.tables import increments
from storage.domain import Image, Split, StoredCheckpoint, StoredFile, new_id, now
from storage.history import models
from storage.maintenance import disposal
from storage.maintenance.disposal import collect, dispose
from storage.material import batches, images, packs, references
from storage.work import leases
from tests.storage.worlds import World


@dataclass
class Store:
    """A database and blobs that belong together."""

    world: World
    blobs: BlobStore
    scratch: Path

    def dispose(self) -> None:
        dispose(database=self.world.database, blobs=self.blobs, scratch=self.scratch)

    def collect(self, least_age: float = 0.0) -> tuple[int, int]:
        return collect(database=self.world.database, blobs=self.blobs, scratch=self.scratch, least_age=least_age)

    def stored(self) -> set[str]:
        return set(self.blobs.digests())

    def batch(self, *contents: bytes) -> list[Image]:
        """A batch of images that have a blob each."""
        batch = self.world.upload(self.world.model(), "a")
        made = [
            Image(new_id(), batch.id, "a", str(n), self.blobs.put(data), len(data), Split.TRAIN)
            for n, data in enumerate(contents)
        ]
        self.world.write(batches.record_ingestion, batch.id, ingested=made, rejects=(), digest="0" * 64)
        return made


@pytest.fixture
def store(world: World, blobs: BlobStore, tmp_path: Path) -> Store:
    world.create()
    return Store(world, blobs, tmp_path / "scratch")


def test_what_was_let_go_of_is_deleted_and_the_rest_stays(store: Store):
    one, two = store.batch(b"one", b"two")
    store.world.write(images.forget, [one.id])
    assert store.blobs.exists(one.digest)
    store.dispose()
    assert store.stored() == {two.digest}
    assert store.world.released() == set()


def test_what_somebody_else_still_needs_is_not_deleted(store: Store):
    (mine,), (theirs,) = store.batch(b"same"), store.batch(b"same")
    store.world.write(images.forget, [mine.id])
    store.dispose()
    assert store.stored() == {theirs.digest}
    store.world.write(images.forget, [theirs.id])
    store.dispose()
    assert store.stored() == set()


def test_nothing_is_deleted_that_a_transaction_did_not_let_go_of_in_the_end(store: Store):
    (image,) = store.batch(b"one")

    def fail(connection: Connection) -> None:
        images.forget(connection, [image.id])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.world.write(fail)
    store.dispose()
    assert store.stored() == {image.digest}


def test_what_a_killed_process_left_named_the_next_one_deletes(store: Store, monkeypatch: pytest.MonkeyPatch):
    made = store.batch(*(bytes([number]) for number in range(7)))
    store.world.write(images.forget, [image.id for image in made])
    delete, seen = type(store.blobs).delete, 0

    def killed(blobs: BlobStore, digest: str) -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt
        delete(blobs, digest)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.blobs), "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            store.dispose()
    assert 3 < len(store.stored()) < 7  # the archive may have been among the three that went
    store.dispose()
    assert store.stored() == set()
    assert store.world.released() == set()


def test_more_are_deleted_than_go_into_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disposal, "_TOGETHER", 3)
    made = store.batch(*(bytes([number]) for number in range(10)))
    store.world.write(images.forget, [image.id for image in made[:8]])
    store.dispose()
    assert store.stored() == {image.digest for image in made[8:]}


def test_what_is_needed_again_is_kept_and_what_was_deleted_before_is_named(store: Store):
    (image,) = store.batch(b"again")
    store.world.write(images.forget, [image.id])
    kept = store.world.write(references.keep, [image.digest, "0" * 64], exists=store.blobs.exists)
    assert kept == ("0" * 64,)
    store.dispose()
    assert store.stored() == {image.digest}


def test_nobody_deletes_what_another_transaction_is_about_to_need(store: Store, monkeypatch: pytest.MonkeyPatch):
    """The other one has found the blob stored, and waits for us: it learns that it has to store it again."""
    (image,) = store.batch(b"content")
    store.world.write(images.forget, [image.id])
    delete = type(store.blobs).delete
    missing: list[tuple[str, ...]] = []

    def again() -> None:
        with store.world.database.write() as connection:
            missing.append(references.keep(connection, [image.digest], exists=store.blobs.exists))

    other = threading.Thread(target=again)

    def slowly(blobs: BlobStore, digest: str) -> None:
        if digest == image.digest:
            other.start()
            other.join(0.5)
            assert missing == []  # it waits
        delete(blobs, digest)

    monkeypatch.setattr(type(store.blobs), "delete", slowly)
    store.dispose()
    other.join()
    assert missing == [(image.digest,)]


def test_a_deleted_model_leaves_nothing_behind(store: Store, tmp_path: Path):
    world, blobs = store.world, store.blobs
    model = world.model()
    store.batch(b"loose")
    writer = PackWriter(tmp_path / "pack")
    offset = writer.add(b"packed")
    writer.close()
    pack = writer.store(blobs)
    batch = world.upload(model, "b")
    shard = blobs.put(b"shard")
    packed = Image(new_id(), batch.id, "b", "p", "1" * 64, 6, Split.TRAIN, shard, 0, pack.digest, offset)
    world.write(batches.record_ingestion, batch.id, ingested=[packed], rejects=(), digest="0" * 64, written=[pack])
    waiting = world.write(batches.create, model_id=model.id, archive=blobs.put(b"archive"), archive_kind="zip")
    assert waiting.archive is not None
    world.push(model, "x", "y")
    claim = world.must_claim()
    files = {"weights.safetensors": StoredFile(blobs.put(b"weights"), 7)}
    assert world.publish(claim, replace(world.outcome(claim), files=files)) is not None
    assert len(store.stored()) == 5
    assert store.world.read(references.everything) >= store.stored()
    world.write(models.delete_model, model.name)
    store.dispose()
    assert store.stored() == set()
    assert world.rows()["packs"] == 0


def test_collecting_deletes_what_nothing_refers_to(store: Store):
    (image,) = store.batch(b"needed")
    orphans = {store.blobs.put(b"orphan %d" % number) for number in range(3)}
    assert store.collect(least_age=3600) == (0, 0)
    assert store.collect() == (4, 3)
    assert store.stored() == {image.digest}
    assert store.collect() == (1, 0)
    assert not orphans & store.stored()


def test_collecting_spares_whatever_is_referred_to(store: Store):
    from storage.work import checkpoints

    world, blobs = store.world, store.blobs
    world.push(world.model(), "x", "y")
    claim = world.must_claim()
    made = StoredCheckpoint(sha256=blobs.put(b"checkpoint"), bytes=10, epoch=1)
    assert world.write(checkpoints.record, claim, made)
    world.write(leases.give_back, claim, reason="why", crashed=True, max_crashes=5)
    archive = blobs.put(b"archive")
    world.write(batches.create, model_id=world.model().id, archive=archive, archive_kind="zip")
    assert store.collect() == (2, 0)


def test_what_a_running_increment_has_stored_is_spared_however_long_ago_that_was(store: Store, tmp_path: Path):
    world, blobs = store.world, DirectoryBlobs(tmp_path / "blobs")
    world.push(world.model(), "x", "y")
    claim = world.must_claim()
    hour = timedelta(hours=1)
    with world.database.write() as connection:
        connection.execute(update(increments).values(started_at=now() - 5 * hour))
    writer = PackWriter(tmp_path / "pack")
    writer.add(b"an image of an ingestion that takes hours")
    writer.close()
    pack, orphan = writer.store(blobs).digest, blobs.put(b"left by an increment long before")
    for digest, hours in ((pack, 4), (orphan, 7)):
        written_at = (now() - hours * hour).timestamp()
        os.utime(tmp_path / "blobs" / digest[:2] / digest, (written_at, written_at))
    own = Store(world, blobs, tmp_path / "scratch")
    assert own.collect(least_age=3600) == (1, 1)
    assert set(blobs.digests()) == {pack}
    world.end(claim)
    assert own.collect(least_age=3600) == (1, 1)
    assert set(blobs.digests()) == set()


def test_collecting_closes_holes_that_were_left(store: Store, tmp_path: Path):
    writer = PackWriter(tmp_path / "pack")
    writer.add(b"gone")
    writer.close()
    pack = writer.store(store.blobs)
    store.world.write(packs.record, [pack])
    store.collect()
    assert store.stored() == set()
    assert store.world.rows()["packs"] == 0


def test_a_blob_that_cannot_be_deleted_stops_no_other_and_is_tried_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    world.create()
    store = Store(world, DirectoryBlobs(tmp_path / "blobs"), tmp_path / "scratch")
    made = store.batch(*(bytes([number]) for number in range(3)))
    stuck = min(image.digest for image in made)  # the first that is tried
    path = tmp_path / "blobs" / stuck[:2] / stuck
    path.unlink()
    (path / "inside").mkdir(parents=True)  # nobody, not even root, unlinks a folder
    world.write(images.forget, [image.id for image in made])
    store.dispose()
    assert store.stored() == {stuck}
    assert world.read(references.awaiting_deletion) == 1
    assert world.released() == set()  # not before a while
    monkeypatch.setattr(references, "FIRST_PAUSE", -1.0)
    world.write(references.take, [stuck])
    world.write(references.postpone, stuck, failures=1)
    monkeypatch.undo()
    store.dispose()
    assert world.read(references.awaiting_deletion) == 1
    assert sum(stuck in record.getMessage() for record in caplog.records) == 1
    (path / "inside").rmdir()
    path.rmdir()
    world.write(references.take, [stuck])
    world.write(references.release, [stuck])
    store.dispose()
    assert world.read(references.awaiting_deletion) == 0
    assert store.stored() == set()


def test_what_s3_does_not_delete_is_deleted_when_it_does_again(world: World, tmp_path: Path, s3_endpoint: str):
    bucket = f"gone-{new_id()}"
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    world.create()
    store = Store(
        world, open_blobs(f"s3://{bucket}/images?endpoint_url={s3_endpoint}&region=us-east-1"), tmp_path / "scratch"
    )
    made = store.batch(b"one", b"two")
    digests = {image.digest for image in made}
    store.dispose()  # the archive, which was let go of
    for digest in digests:
        store.blobs.delete(digest)
    client.delete_bucket(Bucket=bucket)
    world.write(images.forget, [image.id for image in made])
    store.dispose()
    assert world.read(references.awaiting_deletion) == 2
    assert world.released() == set()  # not before a while
    client.create_bucket(Bucket=bucket)
    assert {store.blobs.put(data) for data in (b"one", b"two")} == digests
    world.write(references.take, digests)
    world.write(references.release, digests)
    store.dispose()
    assert world.read(references.awaiting_deletion) == 0
    assert store.stored() == set()
