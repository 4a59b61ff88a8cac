"""Packed copies of images: pixels against Pillow and numpy, decoded once, mapped, and made anew where they are lost."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from sqlalchemy import select

from storage.blobs import shards
from storage.blobs.opening import open_blobs
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.database.tables import images as images_table
from storage.domain import Image, Pack, Split, new_id
from storage.errors import BatchInvalid, BlobMissing
from storage.maintenance.disposal import dispose
from storage.material import batches, images, references
from storage.settings import Settings
from storage.work.leases import Claim, ClaimLost
from tests.patterns import SIZE, picture
from tests.storage.worlds import World
from trainer.ingestion.packing import store
from trainer.ingestion.rows import Rows
from trainer.ingestion.splits import Ingested
from trainer.networks import decode, pixels
from trainer.networks.pictures import Form
from trainer.process.context import AttemptContext
from trainer.process.lines import LineReport
from trainer.process.pixels import pool
from trainer.process.run import _reason
from trainer.process.stages import _record

LABELS = ("basil", "chive", "dill")
COLOUR = Form(channels=3, image_size=SIZE)


@dataclass
class Bench:
    """A claimed increment with thirty pictures that nobody has packed."""

    world: World
    blobs: BlobStore
    claim: Claim
    batch_id: str
    folder: Path
    settings: Settings

    def images(self) -> tuple[Image, ...]:
        """As they stand in the database now."""
        return self.world.read(images.of_batch, self.batch_id)

    def pool(self, stored, *, form: Form = COLOUR, threads: int = 2, **settings) -> torch.Tensor:
        scratch = self.folder / new_id()
        scratch.mkdir()
        chosen = self.settings.model_copy(update={"threads": threads, **settings})
        with (scratch / "lines").open("w") as lines:
            context = AttemptContext(self.world.database, self.blobs, chosen, scratch, LineReport(lines))
            found = pool(stored, form=form, claim=self.claim, context=context)
        self.said = (scratch / "lines").read_text()
        return found


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    settings = Settings(home=tmp_path)
    world, blobs = World(Database(database_url)), open_blobs(settings.blobs)
    pushed = world.push(world.create(), *LABELS)
    stored = [
        Image(
            id=new_id(),
            batch_id=pushed.batch,
            label=LABELS[number % 3],
            filename=f"{number}.png",
            digest=blobs.put(picture(LABELS[number % 3], number)),
            size=9,
            split=Split.TEST if number % 5 == 0 else Split.TRAIN,
        )
        for number in range(30)
    ]
    world.write(batches.record_ingestion, pushed.batch, ingested=stored, rejects=(), digest="0" * 64)
    yield Bench(world, blobs, world.must_claim(), pushed.batch, tmp_path, settings)
    world.database.close()


@pytest.mark.parametrize("size", [SIZE, 8, 21], ids=["as they are", "smaller", "larger"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")], ids=["grey", "colour"])
def test_pixels_are_those_of_the_pictures_in_the_order_given(bench, channels, mode, size):
    stored = bench.images()[::-1]
    found = bench.pool(stored, form=Form(channels, size))
    assert found.dtype == torch.uint8
    assert found.shape == (30, channels, size, size)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for image, one in zip(stored, found, strict=True):
        with Picture.open(io.BytesIO(bench.blobs.get(image.digest))) as opened:
            expected = opened.convert(mode)
            if size != SIZE:
                expected = expected.resize((size, size), Picture.Resampling.BILINEAR)
        assert np.array_equal(one.numpy(), np.asarray(expected).reshape(size, size, channels).transpose(2, 0, 1))


def encoded(mode: str, format_: str, **options) -> bytes:
    generator = np.random.default_rng(3)
    shape = (40, 30) if mode in {"L", "I;16"} else (40, 30, len(mode))
    levels = generator.integers(0, 65536 if mode == "I;16" else 256, shape)
    buffer = io.BytesIO()
    if mode == "I;16":
        made = Picture.fromarray(levels.astype(np.uint16))
    else:
        made = Picture.frombytes(mode, (30, 40), levels.astype(np.uint8).tobytes())
    made.save(buffer, format_, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "format_"),
    [("L", "PNG"), ("RGB", "JPEG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("I;16", "PNG"), ("RGB", "WEBP"), ("L", "GIF")],
)
def test_a_row_is_what_serving_would_see(mode, format_, channels):
    data = encoded(mode, format_)
    form = Form(channels, 20)
    expected = pixels(decode(data, channels=channels), 20).permute(1, 2, 0).numpy().tobytes()
    assert form.row(data, max_pixels=10_000) == expected
    assert len(expected) == form.row_bytes


def test_what_was_packed_is_not_decoded_again(bench):
    first = bench.pool(bench.images())
    stored = bench.images()
    assert all(image.shard is not None for image in stored)
    for image in stored:
        bench.blobs.delete(image.digest)  # the original: whoever decodes now finds nothing
    assert torch.equal(bench.pool(stored), first)


def test_each_side_has_shards_of_its_own_and_classes_lie_together(bench):
    bench.pool(bench.images())
    stored = bench.images()
    by_shard = {image.shard: image.split for image in stored}
    assert sorted(by_shard.values()) == [Split.TEST, Split.TRAIN]
    for image in stored:
        assert image.split is by_shard[image.shard]
    train = sorted((image for image in stored if image.split is Split.TRAIN), key=lambda image: image.row or 0)
    assert [image.label for image in train] == sorted(image.label for image in train)
    assert [image.row for image in train] == list(range(24))


def test_shards_are_bounded(bench, monkeypatch):
    monkeypatch.setattr(shards, "LARGEST", 5 * COLOUR.row_bytes)
    found = bench.pool(bench.images())
    stored = bench.images()
    assert len({image.shard for image in stored}) == 2 + 5  # of 6 and of 24 images
    assert torch.equal(bench.pool(stored), found)


@pytest.mark.parametrize("threads", [1, 8])
def test_the_number_of_threads_changes_nothing(bench, threads):
    before = bench.images()
    bench.pool(before, threads=threads)
    one = {image.digest: (image.shard, image.row) for image in bench.images()}
    bench.pool(before, threads=2)
    assert {image.digest: (image.shard, image.row) for image in bench.images()} == one


def test_a_damaged_or_missing_shard_is_made_anew_from_the_originals(bench):
    first = bench.pool(bench.images())
    shard = next(image.shard for image in bench.images() if image.split is Split.TRAIN)
    blob = next(path for path in (bench.folder / "blobs").rglob(shard))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert torch.equal(bench.pool(bench.images()), first)
    assert "packed anew" in bench.said
    for again in {image.shard for image in bench.images()}:
        bench.blobs.delete(again)
    assert torch.equal(bench.pool(bench.images()), first)
    assert torch.equal(bench.pool(bench.images()), first)
    assert "packed anew" not in bench.said


def test_a_lost_claim_records_no_places(bench):
    bench.world.end(bench.claim)
    with pytest.raises(ClaimLost):
        bench.pool(bench.images())
    assert {image.shard for image in bench.images()} == {None}


def test_an_original_that_is_gone_is_not_passed_over(bench):
    stored = bench.images()
    bench.blobs.delete(stored[3].digest)
    with pytest.raises(BlobMissing):
        bench.pool(stored)


def test_an_ingestion_whose_commit_s_answer_was_lost_is_recorded_once(bench):
    batch = bench.world.read(batches.get, bench.world.push(bench.world.create("other"), "x", "y").batch_id)
    image = replace(bench.images()[0], id=new_id(), batch_id=batch.id, label="x", pack="1" * 64, offset=16)
    found = Ingested(images=(image,), rejects=(), digest="2" * 64, packs=(Pack("1" * 64, 9),))
    job: Any = SimpleNamespace(claim=bench.claim, batch=batch)
    context: Any = SimpleNamespace(blobs=bench.blobs)
    first, again = (bench.world.write(_record, job, found, context) for _ in range(2))
    assert first == again
    assert bench.world.read(images.of_batch, batch.id) == (image,)


def test_the_limit_of_pixels_is_the_one_that_is_set(bench):
    assert len(bench.pool(bench.images()[:4], max_image_pixels=SIZE * SIZE)) == 4
    image = bench.images()[4]
    with pytest.raises(BatchInvalid, match="pixels") as refused:
        bench.pool(bench.images()[4:5], max_image_pixels=SIZE * SIZE - 1)
    assert image.filename in refused.value.detail
    assert image.id in refused.value.detail


def test_an_original_that_is_no_image_fails_with_its_name_and_the_reason(bench):
    """Its bytes are those that were stored, so another attempt would find the same."""
    batch, image = bench.batch_id, replace(bench.images()[0], id=new_id(), digest=bench.blobs.put(b"no image at all"))
    bench.world.write(batches.record_ingestion, batch, ingested=[image], rejects=(), digest="0" * 64)
    with pytest.raises(BatchInvalid, match="not a JPEG") as refused:
        bench.pool(bench.images())
    assert image.filename in refused.value.detail
    assert _reason(refused.value, bench.settings) == refused.value.detail  # which ends the increment at once


def test_pixels_lie_in_a_file_and_take_no_memory_of_their_own(bench):
    """100 MB of them, of which this process has none that the kernel could not take back."""
    form = Form(channels=3, image_size=1024)
    stored = bench.images()
    before = anonymous()
    found = bench.pool(stored, form=form)
    assert int(found.sum(dtype=torch.int64)) > 0  # all of it was looked at
    assert found.numel() > 90_000_000
    assert anonymous() - before < 30_000_000


def anonymous() -> int:
    """Bytes of memory of this process that no file stands behind."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def test_rows_are_kept_by_number_and_the_place_is_given_back(tmp_path):
    with Rows(tmp_path, row_bytes=4) as rows:
        rows.put(5, b"efgh")
        rows.put(0, b"abcd")
        assert (rows.get(0), rows.get(5)) == (b"abcd", b"efgh")
    assert list(tmp_path.iterdir()) == []


def test_forgotten_images_leave_no_packed_copy_and_the_others_are_packed_again(bench):
    first = bench.pool(bench.images())
    before = bench.images()
    gone = [image for image in before if image.split is Split.TRAIN][:2]
    with bench.world.database.write() as connection:
        released = images.forget(connection, [image.id for image in gone])
    assert set(released) == {*(image.digest for image in gone), gone[0].shard}
    dispose(database=bench.world.database, blobs=bench.blobs, scratch=bench.folder)
    left = bench.images()
    assert len(left) == 28
    assert {image.shard for image in left if image.split is Split.TRAIN} == {None}
    assert None not in {image.shard for image in left if image.split is Split.TEST}
    again = bench.pool(left)
    kept = [position for position, image in enumerate(before) if image not in gone]
    assert torch.equal(again, first[kept])
    secrets = [COLOUR.row(picture(image.label, int(image.filename[:-4])), max_pixels=10_000) for image in gone]
    stored_bytes = [bench.blobs.get(digest) for digest in bench.blobs.digests()]
    assert not any(secret in data for secret in secrets for data in stored_bytes)


def test_two_batches_of_equal_images_share_a_shard_that_stays_while_one_needs_it(bench):
    bench.pool(bench.images())
    shard = next(image.shard for image in bench.images() if image.split is Split.TEST)
    other = [image for image in bench.images() if image.shard == shard]
    places = store(
        other,
        lambda image: COLOUR.row(bench.blobs.get(image.digest), max_pixels=10_000),
        form=COLOUR,
        folder=bench.folder,
        blobs=bench.blobs,
    )
    assert {digest for digest, _ in places.values()} == {shard}
    with bench.world.database.read() as connection:
        count = connection.scalar(select(images_table.c.id).where(images_table.c.shard == shard).limit(1))
        assert count is not None
        assert references.unreferenced(connection, [str(shard)]) == frozenset()
