"""Stored images: found in an order of their own, and forgotten as retention says."""

from dataclasses import replace

import pytest

from storage.domain import Image, Model, Retention, Split, new_id
from storage.errors import ImageNotFound
from storage.history import models, versions
from storage.material import batches, exemplars, images, references
from tests.storage.worlds import World, sha256


def images_of(world: World, batch_id: str) -> dict[tuple[str, Split | None], int]:
    found: dict[tuple[str, Split | None], int] = {}
    for image in world.read(images.of_batch, batch_id):
        found[image.label, image.split] = found.get((image.label, image.split), 0) + 1
    return found


def batch_of(world: World, model: Model) -> str:
    """The batch of the model's head."""
    head = world.model(model.name).head
    assert head is not None
    return world.look(world.read(versions.get, model, head).increment_id).batch


def test_images_come_in_an_order_of_their_contents(world: World):
    batch = world.upload(world.create(), "b", "a")
    stored = world.ingest(batch.id)
    assert [(i.label, i.digest) for i in stored] == sorted((i.label, i.digest) for i in stored)
    assert len(stored) == 12
    again = [replace(image, id=new_id()) for image in reversed(stored)]
    world.write(batches.record_ingestion, batch.id, ingested=again, rejects=(), digest=sha256("d"))
    assert [i.digest for i in world.read(images.of_batch, batch.id)] == [i.digest for i in stored]


def test_images_are_chosen_by_side_and_label(world: World):
    batch = world.upload(world.create(), "a", "b")
    world.ingest(batch.id)
    tests = world.read(images.of_batch, batch.id, split=Split.TEST, labels={"a"})
    assert [(image.label, image.split) for image in tests] == [("a", Split.TEST)] * 2
    assert world.read(images.of_batch, batch.id, labels=set()) == ()


def test_an_image_knows_its_model(world: World):
    world.create("other")
    model = world.create("mine")
    image = world.ingest(world.upload(model, "a", "b").id)[0]
    assert world.read(images.get, image.id) == image
    assert world.read(images.model_of, image.id) == model.id
    for call in (images.get, images.model_of):
        with pytest.raises(ImageNotFound, match="nowhere"):
            world.read(call, "nowhere")


def test_more_images_are_found_and_forgotten_than_one_statement_takes(world: World):
    batch = world.upload(world.create(retention=Retention.NONE), "a", "b")
    many = [Image(new_id(), batch.id, "a", f"{n}.png", sha256(str(n)), 1, Split.TRAIN) for n in range(1234)]
    world.write(batches.record_ingestion, batch.id, ingested=many, rejects=(), digest=sha256("d"))
    wanted = [image.id for image in many[:1100]]
    assert {image.id for image in world.read(images.by_ids, [*wanted, "nowhere"])} == set(wanted)
    digests = [image.digest for image in many]
    assert world.read(references.unreferenced, [*digests, sha256("gone")]) == {sha256("gone")}
    gone = world.write(images.apply_retention, batch.id, Retention.NONE)
    assert sorted(gone) == sorted(digests)
    assert world.read(references.unreferenced, digests) == set(digests)
    assert world.rows()["images"] == 0


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention.ALL, {("a", Split.TRAIN): 4, ("a", Split.TEST): 2, ("b", Split.TRAIN): 4, ("b", Split.TEST): 2}),
        (
            Retention.EXEMPLARS,
            {("a", Split.TRAIN): 1, ("a", Split.TEST): 2, ("b", Split.TRAIN): 1, ("b", Split.TEST): 2},
        ),
        (Retention.NONE, {("a", Split.TRAIN): 1, ("b", Split.TRAIN): 1}),
    ],
)
def test_publication_leaves_what_retention_keeps_and_every_exemplar(
    world: World, retention: Retention, left: dict[tuple[str, Split], int]
):
    model = world.create(retention=retention)
    published = world.learn(model, "a", "b", kept=1)
    assert images_of(world, batch_of(world, model)) == left
    assert len(published.forgotten) == 12 - sum(left.values())
    assert world.read(references.unreferenced, published.forgotten) == set(published.forgotten)
    assert len(world.read(exemplars.of_version, model_id=model.id, version=1)) == 2


def test_a_content_that_another_batch_holds_is_still_referred_to(world: World):
    model = world.create(retention=Retention.NONE)
    first, second = world.upload(model, "a", "b"), world.upload(model, "c", "d")
    stored = world.ingest(first.id)
    copies = [replace(image, id=new_id(), batch_id=second.id, label="c") for image in stored[:3]]
    world.write(batches.record_ingestion, second.id, ingested=copies, rejects=(), digest=sha256("d"))
    gone = world.write(images.apply_retention, first.id, Retention.NONE)
    assert set(gone) - world.read(references.unreferenced, gone) == {image.digest for image in copies}


def test_an_exemplar_stays_while_any_version_refers_to_it_and_goes_with_the_last(world: World):
    model = world.create(retention=Retention.EXEMPLARS)
    world.learn(model, "a", "b", kept=2)
    first_batch = batch_of(world, model)
    kept = world.read(exemplars.of_version, model_id=model.id, version=1)
    passed_on = [image for image in kept if image.label == "a"]

    pushed = world.push(model, "c", "d")
    claim = world.must_claim()
    world.ingest(pushed.batch)
    outcome = replace(world.outcome(claim), exemplars={"a": [image.id for image in passed_on]})
    assert world.publish(claim, outcome) is not None
    assert images_of(world, first_batch)["b", Split.TRAIN] == 2

    world.write(versions.remove, world.model(), 1)
    unneeded = world.read(references.unreferenced, world.released())
    assert {image.digest for image in kept if image.label == "b"} <= unneeded
    assert not {image.digest for image in passed_on} & unneeded
    assert images_of(world, first_batch) == {("a", Split.TRAIN): 2, ("a", Split.TEST): 2, ("b", Split.TEST): 2}
    assert set(world.read(exemplars.of_version, model_id=model.id, version=2)) == set(passed_on)


def test_where_all_images_are_kept_a_deleted_version_takes_none_along(world: World):
    model = world.create(retention=Retention.ALL)
    world.learn(model, "a", "b", kept=2)
    world.learn(model, "c", "d")
    before = world.rows()["images"]
    world.write(versions.remove, world.model(), 1)
    assert world.rows()["images"] == before
    assert world.read(exemplars.of_version, model_id=model.id, version=1) == ()


def test_exemplars_come_by_class_and_rank(world: World):
    model = world.create()
    pushed = world.push(model, "b", "a")
    claim = world.must_claim()
    stored = [image for image in world.ingest(pushed.batch) if image.split is Split.TRAIN]
    ranked = {label: [i.id for i in stored if i.label == label][::-1] for label in ("b", "a")}
    world.publish(claim, replace(world.outcome(claim), exemplars=ranked))
    found = world.read(exemplars.of_version, model_id=model.id, version=1)
    assert [image.id for image in found] == [*ranked["a"], *ranked["b"]]


def test_a_change_of_retention_counts_from_the_next_publication(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    first_batch = batch_of(world, model)
    world.write(models.change, model.name, {"retention": Retention.EXEMPLARS})
    world.learn(model, "c", "d")
    assert sum(images_of(world, first_batch).values()) == 12
    assert images_of(world, batch_of(world, model)) == {("c", Split.TEST): 2, ("d", Split.TEST): 2}
