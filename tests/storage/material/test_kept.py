"""Images of predictions that a model keeps: bounded by bytes, let go with their record, erased by their content."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from storage.domain import Image, KeepPredictions, KeptImage, Model, Prediction, new_id, now
from storage.errors import PredictionNotFound
from storage.history import models
from storage.maintenance.pruning import prune
from storage.material import batches, erasure, kept, references
from storage.requests import predictions
from storage.settings import Settings
from tests.storage.worlds import World, sha256, together

ROOM = 1 << 30


@pytest.fixture
def keeping(world: World) -> Model:
    return world.write(models.change, world.create().name, {"keep_predictions": KeepPredictions.ALL})


def recorded(world: World, model: Model, *, days: float = 0.0) -> Prediction:
    made = Prediction(new_id(), model.id, 1, ((("cat", 1.0),),), now() - timedelta(days=days))
    world.write(predictions.add, [made])
    return made


def keep(world: World, record: Prediction, *contents: str, size: int = 10, most_bytes: int = ROOM, **absent: Any):
    """Keep images of a record that were stored before; ``absent`` is what the store says of them."""
    found = [
        KeptImage(record.id, position, record.model_id, sha256(content), size, record.created_at)
        for position, content in enumerate(contents)
    ]
    stored = absent.get("exists", lambda _: True)
    return world.write(kept.add, found, most_bytes=most_bytes, exists=stored)


def left(world: World, records: Sequence[Prediction]) -> list[int]:
    positions = world.read(kept.positions, [record.id for record in records])
    return [len(positions.get(record.id, ())) for record in records]


def test_a_kept_image_is_found_and_its_blob_is_needed(world: World, keeping: Model):
    record = recorded(world, keeping)
    keep(world, record, "one", "two")
    found = world.read(kept.get, record.id, 1)
    assert (found.digest, found.size, found.model_id) == (sha256("two"), 10, keeping.id)
    assert world.read(kept.positions, [record.id]) == {record.id: (0, 1)}
    both = {sha256("one"), sha256("two")}
    assert world.read(references.everything) >= both
    assert world.read(references.of_model, keeping.id) >= both
    assert world.read(references.unreferenced, both | {sha256("none")}) == {sha256("none")}


def test_an_image_that_is_not_kept_is_said(world: World, keeping: Model):
    record = recorded(world, keeping)
    with pytest.raises(PredictionNotFound, match="image 0"):
        world.read(kept.get, record.id, 0)


def test_the_oldest_go_when_the_bytes_are_too_many(world: World, keeping: Model):
    made = [recorded(world, keeping) for _ in range(5)]
    for number, record in enumerate(made):
        keep(world, record, f"image {number}", most_bytes=30)
    assert left(world, made) == [0, 0, 1, 1, 1]
    assert world.released() == {sha256("image 0"), sha256("image 1")}


def test_the_bound_holds_for_each_model_and_when_many_write_at_once(world: World, keeping: Model):
    other = world.write(models.change, world.create("other").name, {"keep_predictions": KeepPredictions.ALL})
    theirs = recorded(world, other)
    keep(world, theirs, "theirs", most_bytes=30)
    made = [recorded(world, keeping) for _ in range(8)]
    together(*(lambda record=record: keep(world, record, record.id, most_bytes=30) for record in made))
    assert sum(left(world, made)) == 3
    assert left(world, [theirs]) == [1]


def test_the_caller_learns_which_blobs_were_deleted_meanwhile(world: World, keeping: Model):
    assert keep(world, recorded(world, keeping), "gone", exists=lambda _: False) == (sha256("gone"),)


def test_with_the_record_its_images_go(world: World, keeping: Model, tmp_path):
    old, new = recorded(world, keeping, days=91), recorded(world, keeping)
    for record in (old, new):
        keep(world, record, record.id)
    assert prune(world.database, Settings(home=tmp_path, kept_images_days=1000))
    assert left(world, [old, new]) == [0, 1]
    assert world.released() == {sha256(old.id)}


def test_images_may_go_before_their_record(world: World, keeping: Model, tmp_path):
    old = recorded(world, keeping, days=31)
    keep(world, old, "old")
    assert prune(world.database, Settings(home=tmp_path))
    assert left(world, [old]) == [0]
    assert world.read(predictions.get, old.id) == old
    assert world.released() == {sha256("old")}


def test_a_model_that_keeps_no_longer_lets_go_of_everything(world: World, keeping: Model):
    record = recorded(world, keeping)
    keep(world, record, "one")
    world.write(models.change, keeping.name, {"keep_predictions": KeepPredictions.NONE})
    assert left(world, [record]) == [0]
    assert world.released() == {sha256("one")}


def test_a_deleted_model_lets_go_of_its_images(world: World, keeping: Model):
    keep(world, recorded(world, keeping), "one")
    world.write(models.delete_model, keeping.name)
    assert world.released() >= {sha256("one")}
    assert world.rows()["kept"] == 0


@pytest.mark.parametrize("how", ["image", "batch", "class"])
def test_what_is_erased_is_kept_no_longer_in_the_same_model(world: World, keeping: Model, how: str):
    other = world.write(models.change, world.create("other").name, {"keep_predictions": KeepPredictions.ALL})
    batch = world.write(batches.create, model_id=keeping.id)
    image = Image(new_id(), batch.id, "cat", "a.png", sha256("cat"), size=10, split=None)
    twin = replace(image, id=new_id(), label="dog", digest=sha256("dog"))
    world.write(batches.add_images, batch.id, [image, twin])
    mine, theirs = recorded(world, keeping), recorded(world, other)
    keep(world, mine, "cat", "unrelated")
    keep(world, theirs, "cat")
    if how == "image":
        world.write(erasure.erase_image, image.id)
    elif how == "batch":
        world.write(erasure.erase_batch, batch.id)
    else:
        world.write(erasure.erase_class, keeping, "cat")
    assert world.read(kept.positions, [mine.id, theirs.id]) == {mine.id: (1,), theirs.id: (0,)}
