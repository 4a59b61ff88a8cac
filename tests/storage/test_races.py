"""Two who write to the same model at once, on a real PostgreSQL: every pair of writers, in either order.

The first has done its work and not committed yet when the second comes. The second waits for it, or has nothing to do
with it; in the end both have happened one after the other, or the second was refused with a reason.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update

from storage.blobs.directory import DirectoryBlobs
from storage.blobs.pack import PackWriter
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.database.tables import batches as batches_table
from storage.database.tables import exemplars as exemplars_table
from storage.database.tables import images as images_table
from storage.database.tables import increments as increments_table
from storage.database.tables import models as models_table
from storage.domain import (
    UNFINISHED,
    BatchStatus,
    ClassCount,
    Image,
    Increment,
    IncrementStatus,
    KnownClasses,
    Memory,
    Pack,
    Promotion,
    Split,
    StoredCheckpoint,
    StoredFile,
    new_id,
)
from storage.errors import AccreteError
from storage.history import models, versions
from storage.maintenance.disposal import dispose
from storage.material import batches, erasure, images, packs, references
from storage.work import checkpoints, increments, leases, publication
from storage.work.leases import Claim
from storage.work.publication import Outcome
from tests.conftest import temporary
from tests.postgresql import PostgreSQL
from tests.storage.worlds import World

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Story:
    """A model in the middle of its life, where everything that writes has something to write."""

    world: World
    blobs: BlobStore
    scratch: Path
    taught: str  # batch of version 1, its images in blobs of their own and packed in one shard
    packed: str  # batch of version 2, its images in a pack with a hole
    pack: str
    open: str
    learning: Claim  # of a collected batch; its lease has run out
    failed: str  # increment, of an archive that nobody has read
    put: list[tuple[int, str]] = field(default_factory=list)  # blobs that writers stored, and by which thread

    def store(self, data: bytes) -> str:
        """Put a blob before the transaction that is to refer to it is committed."""
        digest = self.blobs.put(data)
        self.put.append((threading.get_ident(), digest))
        return digest

    def give_up(self) -> None:
        """What `accrete gc` does after a while with blobs that a refused writer put."""
        mine = [digest for thread, digest in self.put if thread == threading.get_ident()]
        self.world.write(references.release, mine)

    def batch_of(self, increment_id: str) -> str:
        return self.world.look(increment_id).batch

    def image(self, batch_id: str) -> Image:
        return self.world.read(images.of_batch, batch_id)[0]


def collected(world: World, blobs: BlobStore, *labels: str) -> str:
    """An open batch with three images of each class, each a blob of its own."""
    batch = world.write(batches.create, model_id=world.model().id)
    added = [
        Image(new_id(), batch.id, label, f"{n}.png", blobs.put(f"{batch.id} {label} {n}".encode()), 9, split)
        for label in labels
        for n, split in enumerate((Split.TRAIN, Split.TRAIN, Split.TEST))
    ]
    world.write(batches.add_images, batch.id, added)
    return batch.id


def learned(world: World, blobs: BlobStore, batch_id: str, number: int) -> None:
    """A version from a collected batch, which keeps an exemplar of each class."""
    world.request(world.model(), world.read(batches.get, batch_id))
    claim = world.must_claim()
    stored = world.read(images.of_batch, batch_id)
    world.write(batches.record_ingestion, batch_id, ingested=stored, rejects=(), digest="0" * 64)
    chosen = {image.label: [image.id] for image in stored if image.split is Split.TRAIN}
    files = {"weights.safetensors": StoredFile(blobs.put(b"weights %d" % number), 9)}
    assert world.publish(claim, replace(world.outcome(claim), exemplars=chosen, files=files)) is not None


def pierced(world: World, blobs: BlobStore, batch_id: str, scratch: Path) -> str:
    """Put a batch's images into one pack and erase one of them; nobody has written the pack anew."""
    stored = world.read(images.of_batch, batch_id)
    writer = PackWriter(scratch / "pack")
    data = {image.id: blobs.get(image.digest) for image in stored}
    sizes = {image: len(content) for image, content in data.items()}
    offsets = {image: writer.add(content) for image, content in data.items()}
    writer.close()
    pack: Pack = writer.store(blobs)
    with world.database.write() as connection:
        packs.record(connection, [pack])
        references.release(connection, {image.digest for image in stored})
        for image in stored:
            here = update(images_table).where(images_table.c.id == image.id)
            connection.execute(here.values(pack=pack.digest, offset=offsets[image.id], size=sizes[image.id]))
    dispose(database=world.database, blobs=blobs, scratch=scratch)
    world.write(erasure.erase_image, stored[-1].id)
    return pack.digest


def told(database: Database, folder: Path) -> Story:
    """Write the story into an empty database."""
    world, blobs, scratch = World(database), DirectoryBlobs(folder / "blobs"), folder / "scratch"
    scratch.mkdir()
    world.create(memory=Memory(per_class=1))
    taught = collected(world, blobs, "a", "b")
    learned(world, blobs, taught, 1)
    shard = blobs.put(b"pixels of version 1")
    stored = world.read(images.of_batch, taught)
    world.write(images.place, [replace(image, shard=shard, row=n) for n, image in enumerate(stored)])
    packed = collected(world, blobs, "c", "d")
    learned(world, blobs, packed, 2)
    pack = pierced(world, blobs, packed, scratch)
    archive = blobs.put(b"archive")
    counts = (ClassCount("i", 4, 2), ClassCount("j", 4, 2))
    unread = world.write(batches.create, model_id=world.model().id, archive=archive, archive_kind="zip", classes=counts)
    failed = world.request(world.model(), unread)
    world.end(world.must_claim())
    waiting = collected(world, blobs, "g", "h")
    world.request(world.model(), world.read(batches.get, waiting))
    claim = world.must_claim(lease_seconds=-1)
    return Story(world, blobs, scratch, taught, packed, pack, collected(world, blobs, "e", "f"), claim, failed.id)


@pytest.fixture(scope="module")
def beginning(
    postgresql: PostgreSQL, migrated_postgresql: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Story, Path]]:
    """Name of a database with the story in it, to be copied from, and the folder of its blobs."""
    folder = tmp_path_factory.mktemp("story")
    name = postgresql.create(template=migrated_postgresql)
    database = Database(postgresql.url(name))
    story = told(database, folder)
    database.close()
    yield name, story, folder
    postgresql.drop(name)


@pytest.fixture
def story(beginning: tuple[str, Story, Path], postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Story]:
    name, story, folder = beginning
    shutil.copytree(folder / "blobs", tmp_path / "blobs")
    (tmp_path / "scratch").mkdir()
    for url in temporary(postgresql, name):
        database = Database(url)
        yield replace(
            story, world=World(database), blobs=DirectoryBlobs(tmp_path / "blobs"), scratch=tmp_path / "scratch", put=[]
        )
        database.close()


# Each writer is the transaction of a route or task, without its commit.
Writer = Callable[[Story, Connection], object]


def add_image(story: Story, connection: Connection) -> object:
    data = f"new {new_id()}".encode()
    image = Image(new_id(), story.open, "e", "new.png", story.store(data), len(data), None)
    models.lock(connection, "plants")
    added = batches.add_images(connection, story.open, [image])
    assert references.keep(connection, [image.digest], exists=story.blobs.exists) == ()
    return added


def request_increment(story: Story, connection: Connection) -> object:
    return increments.request(
        connection,
        model=models.lock(connection, "plants"),
        batch_id=story.open,
        strategy="lwf",
        recipe={},
        rehearses=True,
        promote=Promotion.AUTO,
        known_classes=KnownClasses.REFUSE,
    )


def erase_open_batch(story: Story, connection: Connection) -> None:
    erasure.erase_batch(connection, story.open)


def erase_taught_batch(story: Story, connection: Connection) -> None:
    erasure.erase_batch(connection, story.taught)


def erase_packed_image(story: Story, connection: Connection) -> None:
    erasure.erase_image(connection, story.image(story.packed).id)


def erase_learning_image(story: Story, connection: Connection) -> None:
    erasure.erase_image(connection, story.image(story.batch_of(story.learning.increment_id)).id)


def erase_open_class(story: Story, connection: Connection) -> object:
    return erasure.erase_class(connection, models.lock(connection, "plants"), "e")


def erase_taught_class(story: Story, connection: Connection) -> object:
    return erasure.erase_class(connection, models.lock(connection, "plants"), "a")


def erase_failed_batch(story: Story, connection: Connection) -> None:
    erasure.erase_batch(connection, story.batch_of(story.failed))


def retry(story: Story, connection: Connection) -> object:
    model = models.lock(connection, "plants")
    return increments.retry(connection, story.failed, model=model, rehearses=True)


def cancel(story: Story, connection: Connection) -> object:
    return increments.cancel(connection, story.learning.increment_id)


def claim(story: Story, connection: Connection) -> object:
    return leases.claim(connection, worker="another", lease_seconds=60, max_crashes=5)


def ingest(story: Story, connection: Connection) -> object:
    """Settle a collected batch, which is looked at under the lock."""
    if not leases.holds(connection, story.learning):
        return None
    batch = batches.get(connection, story.batch_of(story.learning.increment_id))
    found = images.of_batch(connection, batch.id)
    return batches.record_ingestion(connection, batch.id, ingested=found, rejects=(), digest="1" * 64)


def pack_anew(story: Story, connection: Connection) -> object:
    """Write a new shard of the images that were there when the increment looked."""
    seen = story.world.read(images.of_batch, story.taught)
    shard = story.store(b"pixels, packed anew")
    if not leases.holds(connection, story.learning):
        references.release(connection, {shard})  # as nobody else would know of it
        return None
    gone = images.place(connection, [replace(image, shard=shard, row=n) for n, image in enumerate(seen)])
    references.release(connection, {image.shard for image in seen if image.shard is not None})
    return gone


def publish(story: Story, connection: Connection) -> object:
    """Publish with exemplars of the own batch and of version 1, chosen before."""
    batch = story.batch_of(story.learning.increment_id)
    chosen = {
        image.label: [image.id] for name in (batch, story.taught) for image in story.world.read(images.of_batch, name)
    }
    made = story.store(b"weights 3")
    outcome = Outcome(
        number=3,
        parent=2,
        tasks=[["a", "b"], ["c", "d"], ["g", "h"]],
        files={"weights.safetensors": StoredFile(made, 9)},
        data_digest="1" * 64,
        code_version="test",
        seconds={},
        metrics={"tag": {"accuracy": [1.0]}},
        exemplars=chosen,
    )
    if (published := publication.publish(connection, story.learning, outcome)) is None:
        references.release(connection, {made})
    return published


def keep_checkpoint(story: Story, connection: Connection) -> object:
    made = StoredCheckpoint(sha256=story.store(b"checkpoint"), bytes=10, epoch=1)
    return checkpoints.record(connection, story.learning, made)


def promote_old(story: Story, connection: Connection) -> object:
    return models.promote(connection, "plants", version=1)


def retire_head(story: Story, connection: Connection) -> None:
    model = models.promote(connection, "plants", version=1)
    versions.remove(connection, model, 2)


def remove_version(story: Story, connection: Connection) -> None:
    versions.remove(connection, models.lock(connection, "plants"), 1)


def delete_model(story: Story, connection: Connection) -> None:
    """Delete a model whose increment has just been cancelled."""
    models.lock(connection, "plants")
    leases.end(connection, story.learning, IncrementStatus.CANCELLED)
    models.delete_model(connection, "plants")


def move_pack(story: Story, connection: Connection) -> object:
    """Write the pack with the hole anew, from what was left of it when it was looked at."""
    left = story.world.read(packs.files, story.pack)
    writer = PackWriter(story.scratch / f"pack-{new_id()}")
    for file, data in zip(left, story.blobs.parts(story.pack, [(f.offset, f.size) for f in left]), strict=True):
        assert len(data) == file.size
        writer.add(data)
    writer.close()
    anew = writer.store(story.blobs)
    if not (moved := packs.move(connection, story.pack, left, anew)):
        references.release(connection, {anew.digest})
    return moved


# Who writes to the same rows: those of one group, each with each and with itself, in either order.
GROUPS: tuple[tuple[Writer, ...], ...] = (
    (add_image, request_increment, erase_open_batch, erase_open_class, delete_model),
    (erase_taught_batch, erase_taught_class, pack_anew, publish, remove_version, delete_model),
    (erase_packed_image, move_pack, delete_model),
    (erase_learning_image, cancel, claim, ingest, publish, keep_checkpoint, delete_model),
    (erase_failed_batch, retry, delete_model),
    (publish, claim, promote_old, retire_head, remove_version, request_increment, retry),
)
PAIRS = sorted(
    {pair for group in GROUPS for pair in product(group, repeat=2)}, key=lambda pair: [w.__name__ for w in pair]
)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-".join(w.__name__ for w in pair) for pair in PAIRS])
def test_two_at_once_are_one_after_the_other(story: Story, first: Writer, second: Writer):
    check(story, race(story, first, second))


def race(story: Story, first: Writer, second: Writer) -> tuple[object, object]:
    """Have the second begin before the first commits; what each answered, or was refused with."""

    def follow() -> object:
        try:
            with story.world.database.write() as connection:
                return second(story, connection)
        except AccreteError as refused:
            story.give_up()
            return refused

    with ThreadPoolExecutor(1) as pool:
        with story.world.database.write() as connection:
            try:
                answer = first(story, connection)
            except AccreteError as refused:  # by the story itself, whoever else comes
                answer = refused
            following = pool.submit(follow)
            wait_until_blocked(story.world.database, following)
        if isinstance(answer, AccreteError):
            story.give_up()
        return answer, following.result(PATIENCE_SECONDS)


def wait_until_blocked(database: Database, following: Future[object]) -> None:
    """Wait until it has ended, or its transaction waits for a lock of another."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not following.done():
        assert time.monotonic() < deadline
        with database.read() as connection:
            waiting = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'"
            ).scalar()
        if waiting:
            return
        time.sleep(0.002)


def check(story: Story, answers: Iterable[object]) -> None:
    """Whatever happened: nothing accepted is lost, nothing needed is missing, nothing erased is left."""
    world = story.world
    dispose(database=world.database, blobs=story.blobs, scratch=story.scratch)
    if world.rows()["models"]:  # with a model, all that was accepted for it goes
        for answer in answers:
            if isinstance(answer, Increment):
                assert world.look(answer.id).created_at == answer.created_at
    with world.database.read() as connection:
        _check_increments(connection)
        _check_counts(connection)
        needed = references.everything(connection)
        assert packs.with_holes(connection) == ()
        kept = (
            select(func.count())
            .select_from(exemplars_table)
            .where(exemplars_table.c.image_id.not_in(select(images_table.c.id)))
        )
        assert connection.scalar(kept) == 0
    stored = set(story.blobs.digests())
    assert needed - stored == set()
    assert stored - needed == set()
    for image in world.read(images.by_ids, _image_ids(world)):
        assert packs.original(image, database=world.database, blobs=story.blobs)


def _image_ids(world: World) -> list[str]:
    with world.database.read() as connection:
        return list(connection.scalars(select(images_table.c.id)))


def _check_increments(connection: Connection) -> None:
    """Whatever is still to be done has its images, and starts from a version that is there."""
    for increment in connection.execute(select(increments_table)):
        batch = batches.get(connection, increment.batch_id)
        if increment.status in UNFINISHED:
            assert batch.classes
            assert batch.archive is not None or images.of_batch(connection, batch.id)
            assert batch.status is not BatchStatus.OPEN
        if increment.status == "running" and increment.parent is not None:
            assert versions.is_there(connection, increment.model_id, increment.parent)
    for model in connection.execute(select(models_table)):
        for number in (model.head, model.current, model.previous):
            assert number is None or versions.is_there(connection, model.id, number)


def _check_counts(connection: Connection) -> None:
    for row in connection.execute(select(batches_table.c.id).where(batches_table.c.archive.is_(None))):
        batch, stored = batches.get(connection, row.id), images.of_batch(connection, row.id)
        assert sum(count.images for count in batch.classes) == len(stored)


def other_image(story: Story, data: bytes) -> Image:
    """An image of these bytes of another model."""
    model = story.world.create("other")
    batch = story.world.write(batches.create, model_id=model.id)
    image = Image(new_id(), batch.id, "z", "z.png", story.blobs.put(data), len(data), None)
    story.world.write(batches.add_images, batch.id, [image])
    return image


def test_a_blob_that_somebody_has_just_found_stored_is_not_deleted_with_its_last_other_image(story: Story):
    theirs = other_image(story, b"of both")
    mine = replace(theirs, id=new_id(), batch_id=story.open, label="e")

    def add(story: Story, connection: Connection) -> object:
        models.lock(connection, "plants")
        batches.add_images(connection, story.open, [mine])
        return references.keep(connection, [mine.digest], exists=story.blobs.exists)

    def erase(story: Story, connection: Connection) -> None:
        erasure.erase_image(connection, theirs.id)
        connection.commit()
        dispose(database=story.world.database, blobs=story.blobs, scratch=story.scratch)

    kept, _ = race(story, add, erase)
    assert kept == ()
    assert story.blobs.get(mine.digest) == b"of both"
    check(story, ())


def test_a_blob_whose_last_image_goes_while_its_name_is_looked_at_is_deleted(story: Story):
    """Its name was written before, by the last image but one, and is about to be taken away: it is referred to."""
    image = other_image(story, b"of one")
    story.world.write(references.release, [image.digest])

    def look(story: Story, _: Connection) -> None:
        dispose(database=story.world.database, blobs=story.blobs, scratch=story.scratch)

    race(story, lambda _, connection: erasure.erase_image(connection, image.id), look)
    check(story, ())
    assert not story.blobs.exists(image.digest)
