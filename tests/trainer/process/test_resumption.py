"""What a checkpoint is good for: the same training, on the same kind of device; anything else starts over."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.blobs.directory import DirectoryBlobs
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.domain import StoredCheckpoint, StoredFile
from storage.settings import Settings
from storage.work import checkpoints
from tests.storage.worlds import World, sha256
from trainer.learning import checkpoint as checkpoint_file
from trainer.learning.checkpoint import Checkpoint, read
from trainer.learning.data import ImageSet
from trainer.process.context import AttemptContext
from trainer.process.job import Job, read_job
from trainer.process.lines import LineReport
from trainer.process.material import Material, training_of
from trainer.process.protocol import CHECKPOINT
from trainer.process.resumption import Resumption, find

CPU = torch.device("cpu")
EXECUTION = {"device": "cpu", "precision": "float32", "threads": 3}


def material(*ids: str) -> Material:
    pool = torch.zeros(len(ids), 3, 2, 2, dtype=torch.uint8)
    images = ImageSet(pool, targets=torch.arange(len(ids)), ids=ids)
    return Material(None, (("a", "b"),), 2, images, None, None, ())


def made(epoch: int) -> Checkpoint:
    state: dict[str, Any] = {"epoch": epoch, "execution": EXECUTION}
    return Checkpoint({"weight": torch.arange(4.0) * epoch}, state)


@dataclasses.dataclass
class Attempt:
    """An attempt as its training process sees it."""

    job: Job
    context: AttemptContext
    blobs: DirectoryBlobs

    def goes_on(self, *ids: str, device: torch.device = CPU) -> Resumption:
        """Look for a checkpoint and compare it with a training on these images."""
        earlier = find(self.job, self.context, device)
        return Resumption(self.job, self.context, earlier, training_of(self.job, material(*ids)))

    def notes(self) -> list[str]:
        lines = map(json.loads, (self.context.folder / "lines").read_text().splitlines())
        return [line["text"] for line in lines if line["kind"] == "note"]

    def told(self) -> list[int]:
        lines = map(json.loads, (self.context.folder / "lines").read_text().splitlines())
        return [line["epoch"] for line in lines if line["kind"] == "checkpoint"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """As many as torch has; a test may change it."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.fixture
def first(database_url: str, tmp_path: Path) -> Iterator[Attempt]:
    """The first attempt at a model's first increment, with a checkpoint after every epoch."""
    world = World(Database(database_url))
    world.push(world.create(), "a", "b")
    job = world.read(read_job, world.must_claim())
    (tmp_path / "scratch").mkdir()
    settings = Settings(home=tmp_path, threads=2, checkpoint_seconds=0)
    blobs = open_blobs(settings.blobs)
    assert isinstance(blobs, DirectoryBlobs)
    with (tmp_path / "scratch" / "lines").open("w") as lines:
        yield Attempt(
            job, AttemptContext(world.database, blobs, settings, tmp_path / "scratch", LineReport(lines)), blobs
        )
    world.database.close()


def second(first: Attempt) -> Attempt:
    """The attempt after it, when the worker has stored what the first one left."""
    file = first.context.folder / CHECKPOINT
    epoch, size = read(file).epoch, file.stat().st_size
    stored = StoredCheckpoint(first.blobs.put_file(file), size, epoch)
    claim = dataclasses.replace(first.job.claim, attempt=2)
    job = dataclasses.replace(first.job, claim=claim)
    return Attempt(with_checkpoint(job, stored), first.context, first.blobs)


def with_checkpoint(job: Job, stored: StoredCheckpoint) -> Job:
    return dataclasses.replace(job, increment=dataclasses.replace(job.increment, checkpoint=stored))


def test_the_next_attempt_takes_up_what_the_last_one_left_with_its_threads(first: Attempt):
    beginning = first.goes_on("1", "2")
    assert (beginning.epoch, beginning.load()) == (None, None)
    beginning.save(made(1))
    beginning.save(made(2))
    assert first.told() == [1, 2]
    again = second(first)
    earlier = find(again.job, again.context, CPU)
    assert earlier is not None
    assert earlier.threads == 3
    going_on = again.goes_on("1", "2")
    loaded = going_on.load()
    assert loaded is not None
    assert (going_on.epoch, loaded.epoch, loaded.state["execution"]) == (2, 2, EXECUTION)
    assert loaded.tensors["weight"].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert again.notes() == []


def test_no_two_attempts_leave_the_same_bytes(first: Attempt):
    first.goes_on("1").save(made(1))
    again = second(first)
    again.goes_on("1").save(made(1))
    assert again.job.increment.checkpoint is not None
    assert first.blobs.put_file(again.context.folder / CHECKPOINT) != again.job.increment.checkpoint.sha256


def _retrained(job: Job) -> Job:
    parent = dataclasses.make_dataclass("Parent", ["number", "files"])  # all that is looked at
    weights = {"weights.safetensors": StoredFile(sha256("other"), 1)}
    return dataclasses.replace(job, line=(parent(1, weights),))


def _changed(job: Job, **changes: Any) -> Job:
    return dataclasses.replace(job, increment=dataclasses.replace(job.increment, **changes))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("parent", _retrained),
        (
            "batch",
            lambda job: dataclasses.replace(job, uploaded=dataclasses.replace(job.batch, digest=sha256("other"))),
        ),
        ("strategy", lambda job: _changed(job, strategy="lwm")),
        ("recipe", lambda job: _changed(job, recipe={"epochs": 3})),
    ],
)
def test_another_training_starts_over_with_threads_of_its_own_and_says_why(first: Attempt, part: str, change):
    first.goes_on("1", "2").save(made(4))
    again = second(first)
    again.job = change(again.job)
    torch.set_num_threads(3)
    going_on = again.goes_on("1", "2")
    assert (going_on.epoch, going_on.load()) == (None, None)
    assert again.notes() == [f"training starts over: the checkpoint of epoch 4 is of another {part}"]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("ids", [("1",), ("2", "1"), ("1", "2", "3")])
def test_so_does_one_on_other_images_or_in_another_order(first: Attempt, ids: tuple[str, ...]):
    first.goes_on("1", "2").save(made(4))
    again = second(first)
    assert again.goes_on(*ids).load() is None
    assert again.notes() == ["training starts over: the checkpoint of epoch 4 is of another set of images"]


def test_a_device_of_another_kind_starts_over(first: Attempt):
    first.goes_on("1").save(made(4))
    again = second(first)
    assert find(again.job, again.context, torch.device("cuda")) is None
    assert again.notes() == ["training starts over: the checkpoint of epoch 4 was computed on cpu, not on cuda"]


@pytest.mark.parametrize("fault", ["missing", "damaged", "no checkpoint", "no tensors"])
def test_a_checkpoint_that_cannot_be_read_starts_over(first: Attempt, fault: str):
    first.goes_on("1").save(made(4))
    again = second(first)
    stored = again.job.increment.checkpoint
    assert stored is not None
    path = first.blobs.root / stored.sha256[:2] / stored.sha256
    if fault == "missing":
        path.unlink()
    elif fault == "damaged":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        data = b"nonsense" * 100 if fault == "no tensors" else _without_state()
        stored = dataclasses.replace(stored, sha256=first.blobs.put(data))
    again.job = with_checkpoint(again.job, stored)
    assert find(again.job, again.context, CPU) is None
    (note,) = again.notes()
    assert note.startswith("training starts over: ")


def _without_state() -> bytes:
    from safetensors.torch import save

    return save({"weight": torch.zeros(2)})


def test_checkpoints_keep_their_distance_in_time(first: Attempt):
    patient = first.context.settings.model_copy(update={"checkpoint_seconds": 3600.0})
    first.context = dataclasses.replace(first.context, settings=patient)
    going_on = first.goes_on("1")
    going_on.load()
    going_on.save(made(1))
    assert first.told() == []
    assert not (first.context.folder / CHECKPOINT).exists()


def test_writing_checkpoints_takes_a_twentieth_of_the_time_at_most(first: Attempt, monkeypatch: pytest.MonkeyPatch):
    clock = [1000.0]
    monkeypatch.setattr("trainer.process.resumption.time.monotonic", lambda: clock[0])
    write = checkpoint_file.write

    def slowly(file: Path, checkpoint: Checkpoint) -> None:
        write(file, checkpoint)
        clock[0] += 2.0  # so that the next one is due after forty seconds

    monkeypatch.setattr(checkpoint_file, "write", slowly)
    first.context = dataclasses.replace(first.context, settings=Settings(home=first.context.settings.home))
    going_on = first.goes_on("1")
    going_on.load()
    for epoch, pause in enumerate((1.5, 10.0, 29.0, 2.0), start=1):
        clock[0] += pause
        going_on.save(made(epoch))
    assert first.told() == [1, 4]


def test_one_that_cannot_be_written_ends_nothing(first: Attempt):
    going_on = first.goes_on("1")
    going_on.save(made(1))
    first.context.folder.joinpath(f".{CHECKPOINT}.unfinished").mkdir()  # as good as a full disk
    going_on.save(made(2))
    (note,) = first.notes()
    assert "epoch 2 could not be written" in note
    assert (first.told(), read(first.context.folder / CHECKPOINT).epoch) == ([1], 1)


def test_the_row_is_where_the_next_attempt_looks(first: Attempt):
    first.goes_on("1").save(made(7))
    file = first.context.folder / CHECKPOINT
    stored = StoredCheckpoint(first.blobs.put_file(file), 1, 7)
    with first.context.database.write() as connection:
        assert checkpoints.record(connection, first.job.claim, stored)
    assert first.context.read(lambda connection: read_job(connection, first.job.claim)).increment.checkpoint == stored
