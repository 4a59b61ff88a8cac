"""The checkpoint an increment would go on from: recorded under the claim, kept in the queue, let go at the end."""

from pathlib import Path

import pytest

from storage.blobs.directory import DirectoryBlobs
from storage.domain import Increment, IncrementStatus, StoredCheckpoint
from storage.maintenance.disposal import dispose
from storage.work import checkpoints, increments, leases
from storage.work.leases import Claim
from tests.storage.worlds import MAX_CRASHES, World, sha256

QUEUED, RUNNING = IncrementStatus.QUEUED, IncrementStatus.RUNNING
FAILED, CANCELLED = IncrementStatus.FAILED, IncrementStatus.CANCELLED


def stored(epoch: int) -> StoredCheckpoint:
    return StoredCheckpoint(sha256=sha256(f"checkpoint {epoch}"), bytes=1000 + epoch, epoch=epoch)


def record(world: World, claim: Claim, epoch: int) -> bool:
    return world.write(checkpoints.record, claim, stored(epoch))


def give_back(world: World, claim: Claim, *, crashed: bool = True) -> IncrementStatus | None:
    return world.write(leases.give_back, claim, reason="why", crashed=crashed, max_crashes=MAX_CRASHES)


def sweep(world: World) -> None:
    world.write(checkpoints.let_go)
    assert not world.read(checkpoints.are_obsolete)


def digest(epoch: int) -> str:
    return stored(epoch).sha256


def test_a_checkpoint_takes_the_place_of_the_one_before_which_is_let_go(world: World):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim()
    assert world.look(made.id).checkpoint is None
    assert record(world, claim, 1)
    assert world.released() == set()
    assert record(world, claim, 3)
    assert record(world, claim, 3)  # the answer to the first commit was lost
    assert world.look(made.id).checkpoint == stored(3)
    assert world.released() == {digest(1)}
    sweep(world)
    assert world.released() == {digest(1)}


def test_whoever_comes_too_late_records_nothing(world: World):
    made = world.push(world.create(), "a", "b")
    late = world.must_claim("late", lease_seconds=-1)
    record(world, late, 1)
    new = world.must_claim("new")
    assert world.look(made.id).checkpoint == stored(1)
    before = world.look(made.id)
    assert not record(world, late, 2)
    assert world.look(made.id) == before
    assert world.released() == {digest(2)}  # of which nobody will ask
    assert record(world, new, 4)
    world.end(new)
    assert not record(world, new, 3)
    assert world.released() == {digest(1), digest(2), digest(3)}


@pytest.mark.parametrize("way", ["crashed", "released", "abandoned"])
def test_it_is_there_for_the_next_attempt_whatever_ended_the_last(world: World, way: str):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim(lease_seconds=-1 if way == "abandoned" else 60)
    record(world, claim, 2)
    if way != "abandoned":
        assert give_back(world, claim, crashed=way == "crashed") is QUEUED
        assert world.look(made.id).checkpoint == stored(2)
    assert world.must_claim() == Claim(made.id, 2)
    sweep(world)
    assert (world.look(made.id).checkpoint, world.released()) == (stored(2), set())


def test_only_attempts_without_a_new_checkpoint_count_towards_the_end(world: World):
    made = world.push(world.create(), "a", "b")
    for epoch in range(1, 2 * MAX_CRASHES):
        claim = world.must_claim()
        record(world, claim, epoch)
        assert give_back(world, claim) is QUEUED
        assert world.look(made.id).crashes == 1
    for crashes in range(2, MAX_CRASHES):
        assert give_back(world, world.must_claim()) is QUEUED
        assert world.look(made.id).crashes == crashes
    assert give_back(world, world.must_claim()) is FAILED


def test_workers_that_vanish_after_a_checkpoint_do_not_count_either(world: World):
    made = world.push(world.create(), "a", "b")
    for epoch in range(1, 2 * MAX_CRASHES):
        claim = world.must_claim(lease_seconds=-1)
        assert record(world, claim, epoch)
    assert world.must_claim() == Claim(made.id, 2 * MAX_CRASHES)
    assert world.look(made.id).crashes == 1


def ended(world: World, way: str) -> Increment:
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim(lease_seconds=-1 if way == "abandoned" else 60)
    record(world, claim, 1)
    if way == "published":
        assert world.publish(claim, world.outcome(claim)) is not None
    elif way == "cancelled in the queue":
        give_back(world, claim)
        world.write(increments.cancel, made.id)
    elif way == "abandoned":
        world.write(increments.cancel, made.id)
        assert world.claim() is None
    else:
        assert world.end(claim, IncrementStatus(way))
    found = world.look(made.id)
    assert found.status.is_final
    return found


@pytest.mark.parametrize("way", ["published", "failed", "cancelled", "cancelled in the queue", "abandoned"])
def test_one_that_has_ended_names_its_checkpoint_until_a_sweep_lets_it_go(world: World, way: str):
    done = ended(world, way)
    assert done.checkpoint == stored(1)
    assert world.read(checkpoints.are_obsolete)
    assert world.released() == set()
    sweep(world)
    assert world.look(done.id).checkpoint is None
    assert world.released() == {digest(1)}
    sweep(world)


@pytest.mark.parametrize("way", ["failed", "cancelled"])
def test_one_that_is_tried_again_starts_over_and_keeps_what_it_makes_then(world: World, way: str):
    done = ended(world, way)
    again = world.retry(done, world.model())
    assert (again.status, again.checkpoint, world.released()) == (QUEUED, None, {digest(1)})
    claim = world.must_claim()
    record(world, claim, 2)
    sweep(world)
    assert world.look(done.id).checkpoint == stored(2)
    world.end(claim)
    sweep(world)
    assert world.released() == {digest(1), digest(2)}


def test_a_blob_that_is_also_another_increment_s_checkpoint_stays(world: World, tmp_path: Path):
    blobs = DirectoryBlobs(tmp_path / "blobs")
    made = StoredCheckpoint(blobs.put(b"where both trainings stand"), 26, epoch=1)
    for name in ("plants", "other"):
        world.push(world.create(name), "a", "b")
    claims = world.must_claim(), world.must_claim()
    for claim in claims:
        assert world.write(checkpoints.record, claim, made)
    for claim, left in zip(claims, [True, False], strict=True):
        world.end(claim)
        sweep(world)
        dispose(database=world.database, blobs=blobs, scratch=tmp_path)
        assert blobs.exists(made.sha256) is left
