"""Checkpoints from an attempt's folder to the blob store and the row, on both databases and in both stores."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from storage.blobs.directory import DirectoryBlobs
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import IncrementStatus, StoredCheckpoint
from storage.maintenance.disposal import dispose
from storage.work import leases
from storage.work.leases import Claim
from tests.storage.worlds import World
from trainer.learning.checkpoint import Checkpoint, read, write
from trainer.process.protocol import CHECKPOINT
from trainer.workers import checkpoint_upload
from trainer.workers.checkpoint_upload import CheckpointUpload, discard_obsolete


def leave(folder: Path, epoch: int) -> None:
    """What a training process does after an epoch."""
    write(folder / CHECKPOINT, Checkpoint({"weight": torch.full((3,), float(epoch))}, {"epoch": epoch}))


def settled(kept: CheckpointUpload) -> None:
    deadline = time.monotonic() + 60
    while kept.is_busy:
        assert time.monotonic() < deadline, "a checkpoint does not arrive"
        time.sleep(0.01)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@dataclass(frozen=True)
class Attempt:
    """An attempt under way, as its worker sees it."""

    world: World
    claim: Claim
    folder: Path

    def kept(self, blobs: BlobStore) -> CheckpointUpload:
        return CheckpointUpload(self.claim, self.folder, database=self.world.database, blobs=blobs)

    def sweep(self, blobs: BlobStore) -> None:
        discard_obsolete(self.world.database)
        dispose(database=self.world.database, blobs=blobs, scratch=self.folder)

    @property
    def named(self) -> StoredCheckpoint | None:
        """What its increment's row names."""
        return self.world.look(self.claim.increment_id).checkpoint

    @property
    def epoch(self) -> int | None:
        return self.named.epoch if self.named is not None else None


@pytest.fixture
def attempt(database_url: str, tmp_path: Path) -> Iterator[Attempt]:
    """The first attempt at the only increment there is."""
    world = World(Database(database_url))
    world.push(world.create(), "a", "b")
    (tmp_path / "attempt").mkdir()
    yield Attempt(world, world.must_claim(), tmp_path / "attempt")
    world.database.close()


def test_the_row_names_the_newest_and_the_store_holds_no_other(attempt: Attempt, blobs: BlobStore, tmp_path: Path):
    found = None
    with attempt.kept(blobs) as kept:
        for epoch in (1, 2, 5):
            leave(attempt.folder, epoch)
            kept.take_over()
            settled(kept)
            found = attempt.named
            assert found is not None
            assert found.epoch == epoch
            assert set(blobs.digests()) == {found.sha256}
    assert found is not None
    blobs.fetch(found.sha256, tmp_path / "fetched")
    assert (tmp_path / "fetched").stat().st_size == found.bytes
    fetched = read(tmp_path / "fetched")
    assert (fetched.epoch, fetched.tensors["weight"].tolist()) == (5, [5.0] * 3)
    assert list(attempt.folder.iterdir()) == []


def test_one_that_the_training_process_overtakes_does_no_harm(attempt: Attempt, blobs: BlobStore):
    leave(attempt.folder, 1)
    leave(attempt.folder, 2)
    with attempt.kept(blobs) as kept:
        kept.take_over()
        kept.take_over()
        settled(kept)
    assert attempt.epoch == 2
    assert len(list(blobs.digests())) == 1


def test_whoever_lost_its_claim_leaves_nothing(attempt: Attempt, blobs: BlobStore):
    attempt.world.write(leases.renew, attempt.claim, lease_seconds=-1)
    assert attempt.world.must_claim("another") == Claim(attempt.claim.increment_id, 2)
    leave(attempt.folder, 1)
    with attempt.kept(blobs) as kept:
        kept.take_over()
        settled(kept)
    assert attempt.named is None
    assert list(blobs.digests()) == []


class AnswerLost(Database):
    """A database whose answer to the next commit does not arrive."""

    loses = False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
        if self.loses:
            self.loses = False
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"))


def test_a_checkpoint_stays_whose_commit_was_done_though_the_answer_was_lost(
    attempt: Attempt, blobs: BlobStore, database_url: str
):
    database = AnswerLost(database_url)
    with CheckpointUpload(attempt.claim, attempt.folder, database=database, blobs=blobs) as kept:
        leave(attempt.folder, 1)
        database.loses = True
        kept.take_over()
        settled(kept)
    assert not database.loses
    assert attempt.named is not None
    assert list(blobs.digests()) == [attempt.named.sha256]
    database.close()


@pytest.mark.parametrize("status", [IncrementStatus.FAILED, IncrementStatus.CANCELLED, IncrementStatus.SUCCEEDED])
def test_nothing_is_left_of_an_increment_that_has_ended(attempt: Attempt, blobs: BlobStore, status: IncrementStatus):
    leave(attempt.folder, 1)
    with attempt.kept(blobs) as kept:
        kept.take_over()
        settled(kept)
    attempt.sweep(blobs)
    assert len(list(blobs.digests())) == 1
    assert attempt.world.end(attempt.claim, status)
    attempt.sweep(blobs)
    assert list(blobs.digests()) == []
    assert attempt.named is None


def test_a_store_that_is_away_keeps_the_older_one_and_gets_the_next_when_it_is_back(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint_upload, "RETRY_SECONDS", 0.2)
    root, away = tmp_path / "store", tmp_path / "away"
    blobs = DirectoryBlobs(root)
    with attempt.kept(blobs) as kept:
        leave(attempt.folder, 1)
        kept.take_over()
        settled(kept)
        root.rename(away)
        leave(attempt.folder, 2)
        kept.take_over()
        settled(kept)
        assert attempt.epoch == 1
        away.rename(root)
        eventually(lambda: attempt.epoch == 2)
        eventually(lambda: len(list(blobs.digests())) == 1)


class Slow(DirectoryBlobs):
    """A store that takes as long as a test wants."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.may_go_on = threading.Event()

    def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        self.may_go_on.wait(60)
        return super().put_file(path, sha256=sha256)


def test_a_slow_store_holds_up_nobody(attempt: Attempt, tmp_path: Path):
    slow = Slow(tmp_path / "store")
    with attempt.kept(slow) as kept:
        leave(attempt.folder, 1)
        kept.take_over()
        leave(attempt.folder, 2)
        kept.take_over()
        assert kept.is_busy  # the store has not gone on: whoever waited for it would still be waiting
        assert attempt.world.write(leases.renew, attempt.claim, lease_seconds=60) is False
        slow.may_go_on.set()
        settled(kept)
        assert attempt.epoch == 2
        assert len(list(slow.digests())) == 1
