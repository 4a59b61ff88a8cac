"""Batches: filled image by image or brought as an archive, closed by an increment, counted when decoded."""

from functools import partial

import pytest

from storage.domain import Batch, BatchStatus, ClassCount, Image, KnownClasses, Reject, Split, new_id
from storage.errors import BatchClosed, BatchNotFound
from storage.material import batches, images, references
from storage.material import rejects as bad_files
from tests.storage.worlds import World, counts, sha256, statements, together


def picture(batch: Batch, label: str, *, split: Split | None = None, content: str | None = None) -> Image:
    digest = sha256(content if content is not None else new_id())
    return Image(id=new_id(), batch_id=batch.id, label=label, filename="a.png", digest=digest, size=7, split=split)


@pytest.fixture
def open_batch(world: World) -> Batch:
    return world.write(batches.create, model_id=world.create().id)


def test_an_uploaded_archive_is_a_closed_batch(world: World):
    rejects = (Reject("cat/notes.txt", "no image"), Reject("größe 日本.png", "empty"))
    made = world.write(
        batches.create,
        model_id=world.create().id,
        archive=sha256("zip"),
        archive_kind="zip",
        classes=counts("cat", "dog"),
        rejects=rejects,
    )
    assert world.read(batches.get, made.id) == made
    assert made.status is BatchStatus.CLOSED
    assert (made.archive, made.fingerprint, made.archive_kind, made.digest) == (
        sha256("zip"),
        sha256("zip"),
        "zip",
        None,
    )
    assert made.classes == (ClassCount("cat", train=4, test=2), ClassCount("dog", train=4, test=2))
    assert made.reject_count == 2
    assert world.read(bad_files.first, [made.id]) == {made.id: rejects}


def test_images_are_counted_by_class_and_side_as_they_come(world: World, open_batch: Batch):
    assert (open_batch.status, open_batch.classes, open_batch.archive) == (BatchStatus.OPEN, (), None)
    world.write(batches.add_images, open_batch.id, [picture(open_batch, "dog"), picture(open_batch, "cat")])
    more = [picture(open_batch, "dog", split=Split.TEST), picture(open_batch, "dog", split=Split.TRAIN)]
    filled = world.write(batches.add_images, open_batch.id, more)
    assert filled.classes == (ClassCount("cat", train=1, test=0), ClassCount("dog", train=2, test=1))
    assert filled == world.read(batches.get, open_batch.id)
    assert {image.label for image in world.read(images.of_batch, open_batch.id)} == {"cat", "dog"}


def test_counts_are_right_when_many_add_at_once(world: World, open_batch: Batch):
    def add(label: str) -> None:
        world.write(batches.add_images, open_batch.id, [picture(open_batch, label) for _ in range(3)])

    together(*[partial(add, label) for label in "abcabc"])
    counted = world.read(batches.get, open_batch.id).classes
    assert counted == tuple(ClassCount(label, train=6, test=0) for label in "abc")


def test_a_batch_that_went_to_an_increment_takes_no_more_images(world: World, open_batch: Batch):
    for label in ("cat", "dog"):
        world.write(batches.add_images, open_batch.id, [picture(open_batch, label) for _ in range(2)])
    world.request(world.model(), open_batch)
    assert world.read(batches.get, open_batch.id).status is BatchStatus.CLOSED
    with pytest.raises(BatchClosed):
        world.write(batches.add_images, open_batch.id, [picture(open_batch, "cat")])
    assert world.rows()["images"] == 4


def test_a_batch_makes_one_increment(world: World):
    model = world.create()
    batch = world.upload(model, "cat", "dog")
    first = world.request(model, batch)
    with pytest.raises(BatchClosed) as refused:
        world.request(model, batch, known_classes=KnownClasses.REHEARSE)
    assert refused.value.extra == {"increment": first.id}
    assert world.rows()["increments"] == 1


def test_a_refused_request_leaves_the_batch_open(world: World, open_batch: Batch):
    world.write(batches.add_images, open_batch.id, [picture(open_batch, "cat"), picture(open_batch, "cat")])
    with pytest.raises(Exception, match="alone"):
        world.request(world.model(), open_batch)
    world.write(batches.add_images, open_batch.id, [picture(open_batch, "dog"), picture(open_batch, "dog")])
    assert world.request(world.model(), open_batch).batch_id == open_batch.id


def test_ingestion_replaces_what_an_earlier_attempt_left(world: World):
    batch = world.upload(world.create(), "cat", "dog")
    abandoned = [picture(batch, "cat"), picture(batch, "bird")]
    world.write(batches.record_ingestion, batch.id, ingested=abandoned, rejects=(), digest=sha256("1"))
    decoded = [picture(batch, "dog", split=side) for side in (Split.TRAIN, Split.TRAIN, Split.TEST)]
    rejects = [Reject("cat/1.png", "truncated")]
    done = world.write(batches.record_ingestion, batch.id, ingested=decoded, rejects=rejects, digest=sha256("2"))
    assert done == world.read(batches.get, batch.id)
    assert (done.status, done.digest, done.reject_count) == (BatchStatus.INGESTED, sha256("2"), 1)
    assert world.read(bad_files.first, [batch.id]) == {batch.id: tuple(rejects)}
    assert done.classes == (ClassCount("dog", train=2, test=1),)
    assert set(world.read(images.of_batch, batch.id)) == set(decoded)


def test_an_archive_is_needed_until_every_batch_of_it_is_ingested(world: World):
    model = world.create()
    first = world.upload(model, "cat", "dog", content="same")
    second = world.upload(model, "cat", "dog", content="same")
    world.ingest(first.id)
    assert sha256("same") in world.released()
    assert world.read(references.unreferenced, [sha256("same")]) == set()
    world.ingest(second.id)
    assert world.read(references.unreferenced, [sha256("same")]) == {sha256("same")}
    kept = world.read(batches.get, first.id)
    assert (kept.archive, kept.fingerprint) == (None, sha256("same"))


def test_a_batch_belongs_to_its_model(world: World):
    mine, other = world.create("mine"), world.create("other")
    batch = world.upload(mine, "cat", "dog")
    assert world.read(batches.get_of_model, mine, batch.id) == batch
    with pytest.raises(BatchNotFound, match="'other'"):
        world.read(batches.get_of_model, other, batch.id)


def test_batches_of_increments_come_in_one_statement(world: World):
    model = world.create()
    made = [world.push(model, *labels) for labels in ("ab", "cd", "ef")]
    with statements() as sent:
        found = world.read(batches.of_increments, [*(one.id for one in made), new_id()])
    assert found == {one.id: world.read(batches.get, one.batch_id) for one in made}
    assert len(sent) == 1
    assert world.read(batches.of_increments, []) == {}


def test_a_batch_that_is_not_there_is_said_by_id(world: World):
    for call in (batches.get, batches.close, partial(batches.add_images, added=[])):
        with pytest.raises(BatchNotFound, match="nowhere"):
            world.write(call, "nowhere")
