"""The writer of prediction records by itself, on both databases: bounded, and each record for itself."""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from api.measures import Measures
from api.serving import records
from api.serving.records import Recorder
from storage.database.engine import Database
from storage.domain import Model, Prediction, new_id, now
from storage.errors import PredictionNotFound
from storage.history import models
from storage.requests import predictions
from tests.storage.worlds import World

FEW = ((("cat", 0.75), ("dog", 0.25)),)
MANY = (tuple((f"class {number}", 0.0001) for number in range(10_000)),) * 8


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url)
    yield World(database)
    database.close()


def recorder_of(world: World) -> Recorder:
    return Recorder(world.database, Measures(CollectorRegistry()), share=1.0)


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


def test_of_a_batch_only_the_records_of_a_deleted_model_are_dropped(world: World):
    recorder = recorder_of(world)
    kept, deleted = world.create("kept"), world.create("deleted")
    made = [record_of(deleted if number % 5 == 3 else kept) for number in range(40)]
    assert all(recorder.add(record) for record in made)
    world.write(models.delete_model, deleted.name)
    recorder.start()
    recorder.stop()
    assert [written(world, record) for record in made] == [record.model_id == kept.id for record in made]
    assert all(recorder.pending(record.id) is None for record in made)


def test_one_record_that_no_database_takes_loses_no_other(world: World):
    recorder, model = recorder_of(world), world.create()
    bad = Prediction(id="x" * 5, model_id=model.id, version=1, predictions=FEW, created_at=now().replace(tzinfo=None))
    good = [record_of(model) for _ in range(3)]
    assert all(recorder.add(record) for record in (good[0], bad, *good[1:]))
    recorder.start()
    recorder.stop()
    assert all(written(world, record) for record in good)
    assert recorder.pending(bad.id) is None


@pytest.mark.parametrize(("ranked", "most"), [(FEW, records.CAPACITY), (MANY, 30)], ids=["by number", "by size"])
def test_what_is_refused_is_not_among_the_pending_and_what_is_written_makes_room(world: World, ranked, most: int):
    recorder, model = recorder_of(world), world.create()
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
