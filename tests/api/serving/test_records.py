"""The writer of prediction records by itself, on both databases: bounded, and each record for itself."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from api.measures import Measures
from api.serving import records
from api.serving.kept_images import KeptImages
from api.serving.records import Recorder
from storage.blobs.directory import DirectoryBlobs
from storage.database.engine import Database
from storage.domain import KeepPredictions, Model, Prediction, new_id, now
from storage.errors import PredictionNotFound
from storage.history import models
from storage.maintenance.disposal import dispose
from storage.material import kept
from storage.requests import predictions
from tests.storage.worlds import World

FEW = ((("cat", 0.75), ("dog", 0.25)),)
MANY = (tuple((f"class {number}", 0.0001) for number in range(10_000)),) * 8


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url)
    yield World(database)
    database.close()


def recorder_of(world: World, tmp_path: Path, *, most_bytes: int = 1 << 30) -> Recorder:
    kept_images = KeptImages(world.database, DirectoryBlobs(tmp_path / "blobs"), most_bytes=most_bytes)
    return Recorder(world.database, Measures(CollectorRegistry()), share=1.0, kept_images=kept_images)


def record_of(model: Model, ranked=FEW) -> Prediction:
    return Prediction(
        id=new_id(),
        model_id=model.id,
        version=1,
        predictions=ranked,
        created_at=now(),
        digests=("0" * 64,) * len(ranked),
        reference="camera 7",
    )


def written(world: World, record: Prediction) -> bool:
    try:
        return world.read(predictions.get, record.id).id == record.id
    except PredictionNotFound:
        return False


def test_of_a_batch_only_the_records_of_a_deleted_model_are_dropped(world: World, tmp_path: Path):
    recorder = recorder_of(world, tmp_path)
    kept, deleted = world.create("kept"), world.create("deleted")
    made = [record_of(deleted if number % 5 == 3 else kept) for number in range(40)]
    assert all(recorder.add(record) for record in made)
    world.write(models.delete_model, deleted.name)
    recorder.start()
    recorder.stop()
    assert [written(world, record) for record in made] == [record.model_id == kept.id for record in made]
    assert all(recorder.pending(record.id) is None for record in made)


def test_one_record_that_no_database_takes_loses_no_other(world: World, tmp_path: Path):
    recorder, model = recorder_of(world, tmp_path), world.create()
    bad = Prediction(id="x" * 5, model_id=model.id, version=1, predictions=FEW, created_at=now().replace(tzinfo=None))
    good = [record_of(model) for _ in range(3)]
    assert all(recorder.add(record) for record in (good[0], bad, *good[1:]))
    recorder.start()
    recorder.stop()
    assert all(written(world, record) for record in good)
    assert recorder.pending(bad.id) is None


@pytest.mark.parametrize(("ranked", "most"), [(FEW, records.CAPACITY), (MANY, 30)], ids=["by number", "by size"])
def test_what_is_refused_is_not_among_the_pending_and_what_is_written_makes_room(
    world: World, tmp_path: Path, ranked, most: int
):
    recorder, model = recorder_of(world, tmp_path), world.create()
    made: list[Prediction] = []
    while recorder.add(one := record_of(model, ranked)):
        made.append(one)
        assert len(made) <= most
    assert recorder.pending(one.id) is None
    assert len(made) == most or ranked is MANY
    assert all(recorder.pending(record.id) is record for record in made)
    recorder.start()
    recorder.stop()
    assert written(world, made[-1])
    assert not written(world, one)
    assert recorder.add(one)


def keeping(world: World) -> Model:
    return world.write(models.change, world.create("keeps").name, {"keep_predictions": KeepPredictions.ALL})


def with_image(model: Model, data: bytes) -> Prediction:
    return replace(record_of(model), digests=(hashlib.sha256(data).hexdigest(),))


def test_images_are_written_with_their_records_and_those_of_a_deleted_model_leave_nothing(world: World, tmp_path: Path):
    recorder, model = recorder_of(world, tmp_path), keeping(world)
    gone = world.write(models.change, world.create("gone").name, {"keep_predictions": KeepPredictions.ALL})
    mine, theirs, plain = with_image(model, b"mine"), with_image(gone, b"theirs"), record_of(model)
    assert all(recorder.add(record, images) for record, images in ((mine, [b"mine"]), (theirs, [b"theirs"])))
    assert recorder.add(plain)
    world.write(models.delete_model, gone.name)
    recorder.start()
    recorder.stop()
    assert [written(world, record) for record in (mine, theirs, plain)] == [True, False, True]
    assert world.read(kept.positions, [mine.id, plain.id]) == {mine.id: (0,)}
    blobs = DirectoryBlobs(tmp_path / "blobs")
    dispose(database=world.database, blobs=blobs, scratch=tmp_path / "scratch")
    assert set(blobs.digests()) == {hashlib.sha256(b"mine").hexdigest()}


def test_a_full_store_costs_the_images_and_no_record(world: World, tmp_path: Path):
    recorder, model = recorder_of(world, tmp_path), keeping(world)
    shutil.rmtree(tmp_path / "blobs")
    (tmp_path / "blobs").write_text("a file where the folder was")
    record = with_image(model, b"image")
    assert recorder.add(record, [b"image"])
    recorder.start()
    recorder.stop()
    assert written(world, record)
    assert world.read(kept.positions, [record.id]) == {}


def test_images_that_find_no_room_leave_their_record(world: World, tmp_path: Path):
    recorder, model = recorder_of(world, tmp_path, most_bytes=3), keeping(world)
    large, small = with_image(model, b"four"), with_image(model, b"two")
    assert recorder.add(large, [b"four"])
    assert recorder.add(small, [b"two"])
    recorder.start()
    recorder.stop()
    assert written(world, large)
    assert world.read(kept.positions, [large.id, small.id]) == {small.id: (0,)}


def test_what_a_killed_process_has_stored_is_deleted(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorder, model = recorder_of(world, tmp_path), keeping(world)
    monkeypatch.setattr(predictions, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        recorder.add_now(with_image(model, b"image"), [b"image"])
    blobs = DirectoryBlobs(tmp_path / "blobs")
    assert list(blobs.digests()) == [hashlib.sha256(b"image").hexdigest()]
    dispose(database=world.database, blobs=blobs, scratch=tmp_path / "scratch")
    assert list(blobs.digests()) == []


def killed(*_: object) -> None:
    raise KeyboardInterrupt
