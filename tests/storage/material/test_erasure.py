"""Erasure: images, batches and classes taken back, with everything that was made of them but the metrics."""

import pytest

from storage.domain import BatchStatus, ClassCount, Image, IncrementStatus, Model, Split, new_id
from storage.errors import BatchInUse, BatchNotFound, ImageNotFound
from storage.history import metrics
from storage.material import batches, erasure, exemplars, images, references
from tests.storage.worlds import World, sha256, statements


@pytest.fixture
def grown(world: World) -> Model:
    """Two versions, of a and b, then of c and d, which keep two exemplars of each new class."""
    model = world.create()
    world.learn(model, "a", "b", kept=2)
    world.learn(model, "c", "d", kept=2)
    return world.model()


def batch_of(world: World, model: Model, version: int) -> str:
    from storage.history import versions

    return world.look(world.read(versions.get, model, version).increment_id).batch


def test_an_erased_image_is_gone_from_counts_and_every_set_of_exemplars(world: World, grown: Model):
    kept = world.read(exemplars.of_version, model_id=grown.id, version=1)
    last = world.learn(grown, "e", "f").version
    document = world.read(metrics.of_versions, [last])
    world.write(erasure.erase_image, kept[0].id)
    with pytest.raises(ImageNotFound):
        world.read(images.get, kept[0].id)
    assert world.read(exemplars.of_version, model_id=grown.id, version=1) == kept[1:]
    counts = {count.label: count for count in world.read(batches.get, kept[0].batch_id).classes}
    assert (counts["a"].train, counts["b"].train) == (3, 4)
    assert kept[0].digest in world.released()
    assert world.read(metrics.of_versions, [last]) == document
    with pytest.raises(ImageNotFound):
        world.write(erasure.erase_image, kept[0].id)


def test_an_erased_batch_that_taught_a_version_stays_as_an_empty_row(world: World, grown: Model):
    name = batch_of(world, grown, 1)
    before = world.read(images.of_batch, name)
    rows = world.rows()
    world.write(erasure.erase_batch, name)
    left = world.read(batches.get, name)
    assert (left.classes, left.archive, left.status) == ((), None, BatchStatus.INGESTED)
    assert world.read(images.of_batch, name) == ()
    assert world.released() >= {image.digest for image in before}
    assert world.read(exemplars.of_version, model_id=grown.id, version=1) == ()
    after = world.rows()
    for table in ("increments", "versions", "metrics", "batches", "events"):
        assert after[table] == rows[table]


def test_a_batch_that_no_increment_came_from_goes_with_its_row_and_archive(world: World):
    batch = world.upload(world.create(), "a", "b")
    world.write(erasure.erase_batch, batch.id)
    with pytest.raises(BatchNotFound):
        world.read(batches.get, batch.id)
    assert world.released() == {batch.archive}


@pytest.mark.parametrize("claimed", [False, True])
def test_a_batch_that_is_being_learned_from_is_not_erased(world: World, claimed: bool):
    pushed = world.push(world.create(), "a", "b")
    if claimed:
        world.must_claim()
    with pytest.raises(BatchInUse, match=pushed.id):
        world.write(erasure.erase_batch, pushed.batch)
    assert world.read(batches.get, pushed.batch).archive is not None


def test_a_batch_of_a_failed_increment_is_erased_and_the_increment_stays(world: World):
    pushed = world.push(world.create(), "a", "b")
    world.end(world.must_claim())
    world.write(erasure.erase_batch, pushed.batch)
    assert world.look(pushed.id).status is IncrementStatus.FAILED
    assert world.read(batches.get, pushed.batch).archive is None


def test_a_class_is_erased_from_every_batch_and_others_are_left_alone(world: World, grown: Model):
    first, second = batch_of(world, grown, 1), batch_of(world, grown, 2)
    other = world.create("other")
    world.learn(other, "a", "b")
    stored = world.read(images.of_batch, first)
    assert world.write(erasure.erase_class, grown, "a") == 6
    assert {image.label for image in world.read(images.of_batch, first)} == {"b"}
    assert len(world.read(images.of_batch, second)) == 12
    assert len(world.read(images.of_batch, batch_of(world, world.model("other"), 1), labels={"a"})) == 6
    assert [count.label for count in world.read(batches.get, first).classes] == ["b"]
    assert {image.digest for image in stored} & world.released() == {i.digest for i in stored if i.label == "a"}
    with pytest.raises(ImageNotFound, match="'a'"):
        world.write(erasure.erase_class, grown, "a")


def test_a_class_that_came_with_many_batches_is_erased_in_as_many_statements_as_one_of_a_few(world: World):
    def erase(model: Model, number: int) -> int:
        filled = [world.write(batches.create, model_id=model.id).id for _ in range(number)]
        for batch_id in filled:
            world.write(batches.add_images, batch_id, [picture(batch_id, "a"), picture(batch_id, "b")])
        with statements() as sent:
            assert world.write(erasure.erase_class, model, "a") == number
        counts = [world.read(batches.get, batch_id).classes for batch_id in filled]
        assert counts == [(ClassCount("b", train=1, test=0),)] * number
        return len(sent)

    assert erase(world.create("many"), 7) == erase(world.create("few"), 2)


def picture(batch_id: str, label: str) -> Image:
    """An image nobody else has."""
    return Image(
        id=new_id(), batch_id=batch_id, label=label, filename="a.png", digest=sha256(new_id()), size=7, split=None
    )


def test_a_class_in_an_archive_that_nobody_has_read_yet_cannot_be_erased(world: World, grown: Model):
    waiting = world.upload(grown, "a", "x")
    with pytest.raises(BatchInUse, match=waiting.id):
        world.write(erasure.erase_class, grown, "a")
    assert world.write(erasure.erase_class, grown, "b") == 6


def test_what_was_erased_while_it_trained_is_no_exemplar_of_what_comes_of_it(world: World):
    model = world.create()
    pushed = world.push(model, "a", "b")
    claim = world.must_claim()
    stored = [image for image in world.ingest(pushed.batch) if image.split is Split.TRAIN]
    world.write(erasure.erase_image, stored[0].id)
    outcome = world.outcome(claim, exemplars={"a": [image.id for image in stored[:3]]})
    assert world.publish(claim, outcome) is not None
    left = world.read(exemplars.of_version, model_id=model.id, version=1)
    assert [image.id for image in left] == [stored[1].id, stored[2].id]


def test_blobs_of_what_others_hold_too_are_not_deleted(world: World, grown: Model):
    from dataclasses import replace

    from storage.domain import new_id

    first = world.read(images.of_batch, batch_of(world, grown, 1))[0]
    second = batch_of(world, grown, 2)
    kept = [*world.read(images.of_batch, second), replace(first, id=new_id(), batch_id=second)]
    world.write(batches.record_ingestion, second, ingested=kept, rejects=(), digest="1" * 64)
    world.write(erasure.erase_image, first.id)
    assert first.digest in world.released()
    assert world.read(references.unreferenced, [first.digest]) == frozenset()
