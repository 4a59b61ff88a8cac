"""How a claim lasts and ends: renewed, taken over, given back, cancelled; whoever comes late changes nothing."""

import sys
from datetime import UTC, datetime, timedelta

import pytest

from storage.domain import Increment, IncrementStatus
from storage.work import increments, leases
from storage.work.leases import LEASE_LOST, Claim
from tests.storage.worlds import MAX_CRASHES, World

QUEUED, RUNNING, SUCCEEDED = IncrementStatus.QUEUED, IncrementStatus.RUNNING, IncrementStatus.SUCCEEDED
FAILED, CANCELLED = IncrementStatus.FAILED, IncrementStatus.CANCELLED


def give_back(world: World, claim: Claim, *, crashed: bool) -> IncrementStatus | None:
    return world.write(leases.give_back, claim, reason="why", crashed=crashed, max_crashes=MAX_CRASHES)


def test_an_expired_lease_is_taken_over_with_a_higher_attempt(world: World):
    made = world.push(world.create(), "a", "b")
    world.must_claim("first", lease_seconds=-1)
    assert world.must_claim("second") == Claim(made.id, 2)
    held = world.look(made.id)
    assert (held.worker, held.attempt, held.crashes) == ("second", 2, 1)
    first, second = world.attempts(made.id)
    assert (first.outcome, first.reason) == ("crashed", LEASE_LOST)
    assert (second.outcome, second.finished_at) == (None, None)
    assert world.statuses(made.id) == ["queued", "running", "running"]


def test_a_renewed_lease_is_not_taken_over(world: World):
    world.push(world.create(), "a", "b")
    claim = world.must_claim(lease_seconds=-1)
    progress = {"stage": "training", "epoch": 1}
    assert world.write(leases.renew, claim, lease_seconds=60, progress=progress) is False
    assert world.claim() is None
    assert world.look(claim.increment_id).progress == progress
    world.write(leases.renew, claim, lease_seconds=60)
    assert world.look(claim.increment_id).progress == progress


@pytest.mark.parametrize("meanwhile", ["renewed", "ended", "published"])
def test_a_holder_who_comes_back_in_time_keeps_what_it_has(world: World, meanwhile: str):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim("holder", lease_seconds=-1)
    (seen,) = world.read(leases.runnable)
    if meanwhile == "renewed":
        world.write(leases.renew, claim, lease_seconds=60)
    elif meanwhile == "ended":
        world.end(claim)
    else:
        assert world.publish(claim, world.outcome(claim)) is not None
    before = world.look(made.id)
    tries = world.attempts(made.id)
    assert world.write(leases._take, seen, worker="thief", lease_seconds=60, crashes=1) is None
    assert world.look(made.id) == before
    assert world.attempts(made.id) == tries


def test_whoever_comes_too_late_changes_nothing(world: World):
    model = world.create()
    made = world.push(model, "a", "b")
    late = world.must_claim("late", lease_seconds=-1)
    outcome = world.outcome(late)
    world.must_claim("new")
    before, tries, rows = world.look(made.id), world.attempts(made.id), world.rows()

    assert world.write(leases.renew, late, lease_seconds=600, progress={"stage": "late"}) is None
    assert not world.write(leases.holds, late)
    assert not world.end(late, FAILED)
    assert not world.end(late, SUCCEEDED)
    assert give_back(world, late, crashed=True) is None
    assert world.publish(late, outcome) is None

    assert world.look(made.id) == before
    assert world.attempts(made.id) == tries
    assert world.rows() == rows
    assert world.model().last_version == 0


@pytest.mark.parametrize("status", [FAILED, CANCELLED, SUCCEEDED])
def test_a_claim_ends_with_its_increment(world: World, status: IncrementStatus):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim("worker")
    assert world.write(leases.holds, claim)
    assert world.end(claim, status)
    ended = world.look(made.id)
    assert (ended.status, ended.lease_expires_at, ended.error) == (status, None, "why")
    assert ended.finished_at is not None
    assert world.outcomes(made.id) == [(1, "worker", str(status))]
    assert world.write(leases.renew, claim, lease_seconds=60) is None
    assert not world.write(leases.holds, claim)
    assert not world.end(claim)
    assert world.statuses(made.id) == ["queued", "running", str(status)]


def test_after_so_many_vanished_workers_in_a_row_an_increment_has_failed(world: World):
    made = world.push(world.create(), "a", "b")
    for attempt in range(1, MAX_CRASHES + 1):
        assert world.must_claim(lease_seconds=-1) == Claim(made.id, attempt)
    assert world.claim() is None
    failed = world.look(made.id)
    assert (failed.status, failed.crashes) == (FAILED, MAX_CRASHES)
    assert failed.error is not None
    assert LEASE_LOST in failed.error
    assert world.claim() is None
    assert [outcome for *_, outcome in world.outcomes(made.id)] == ["crashed"] * MAX_CRASHES + ["failed"]


def test_one_that_fails_at_the_claim_makes_way_for_the_next_at_once(world: World):
    model = world.create()
    first, second = world.push(model, "a", "b"), world.push(model, "c", "d")
    for _ in range(MAX_CRASHES):
        world.must_claim(lease_seconds=-1)
    assert world.must_claim() == Claim(second.id, 1)
    assert world.look(first.id).status is FAILED


def test_a_crash_goes_back_to_the_queue_until_it_is_one_too_many(world: World):
    made = world.push(world.create(), "a", "b")
    for crashes in range(1, MAX_CRASHES):
        assert give_back(world, world.must_claim(), crashed=True) is QUEUED
        waiting = world.look(made.id)
        assert (waiting.status, waiting.crashes, waiting.worker) == (QUEUED, crashes, None)
        assert (waiting.lease_expires_at, waiting.progress) == (None, None)
    assert give_back(world, world.must_claim(), crashed=True) is FAILED
    failed = world.look(made.id)
    assert (failed.status, failed.crashes) == (FAILED, MAX_CRASHES)
    assert failed.error is not None
    assert failed.error.endswith("why")


def test_a_worker_that_shuts_down_in_order_counts_no_crash(world: World):
    made = world.push(world.create(), "a", "b")
    for _ in range(MAX_CRASHES + 1):
        assert give_back(world, world.must_claim("worker"), crashed=False) is QUEUED
    assert world.look(made.id).crashes == 0
    assert {outcome for *_, outcome in world.outcomes(made.id)} == {"released"}


def test_what_is_given_back_keeps_its_place(world: World):
    model = world.create()
    first = world.push(model, "a", "b")
    world.push(model, "c", "d")
    give_back(world, world.must_claim(), crashed=True)
    assert world.must_claim() == Claim(first.id, 2)


def test_a_holder_hears_of_a_cancellation_when_it_renews(world: World):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim()
    world.write(increments.cancel, made.id)
    assert world.write(leases.renew, claim, lease_seconds=60) is True


def cancelled_while(world: World, made: Increment, claim: Claim, way: str) -> None:
    world.write(increments.cancel, made.id)
    if way == "abandoned":
        world.write(leases.renew, claim, lease_seconds=-1)
        assert world.claim() is None
    else:
        assert give_back(world, claim, crashed=way == "crashed") is CANCELLED


@pytest.mark.parametrize("way", ["abandoned", "crashed", "shut down"])
def test_a_cancellation_stays_true_whatever_becomes_of_the_worker(world: World, way: str):
    model = world.create()
    made = world.push(model, "a", "b")
    for _ in range(MAX_CRASHES - 1):
        world.must_claim(lease_seconds=-1)
    cancelled_while(world, made, world.must_claim(), way)
    cancelled = world.look(made.id)
    assert (cancelled.status, cancelled.error) == (CANCELLED, None)
    assert cancelled.finished_at is not None
    assert world.claim() is None
    assert world.statuses(made.id)[-1] == "cancelled"
    assert world.push(model, "a", "b").status is QUEUED


def test_one_that_is_cancelled_at_the_claim_makes_way_for_the_next_at_once(world: World):
    model = world.create()
    first, second = world.push(model, "a", "b"), world.push(model, "c", "d")
    world.must_claim(lease_seconds=-1)
    world.write(increments.cancel, first.id)
    assert world.must_claim() == Claim(second.id, 1)
    assert world.look(first.id).status is CANCELLED


def shifted(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Have the clock of this process' machine, as every module of ours reads it, be wrong by so many hours."""
    for name, module in list(sys.modules.items()):
        if name.startswith("storage") and hasattr(module, "now"):
            monkeypatch.setattr(module, "now", lambda: datetime.now(UTC) + timedelta(hours=hours))


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_wrong_steals_nothing_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, hours: float
):
    model, other = world.create(), world.create("other")
    world.push(model, "a", "b")
    held = world.must_claim("right")
    with monkeypatch.context() as clock:
        shifted(clock, hours)
        assert world.read(leases.runnable) == ()
        assert world.claim("wrong") is None
        world.push(other, "a", "b")
        own = world.must_claim("wrong")
        assert world.write(leases.renew, own, lease_seconds=60) is False
    assert world.claim("right") is None
    for claim in (held, own):
        assert world.write(leases.holds, claim)
    assert world.write(leases.renew, own, lease_seconds=-1) is False
    assert world.must_claim("right") == Claim(own.increment_id, 2)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lease_given_by_a_worker_whose_clock_is_wrong_runs_out_when_it_should(
    world: World, monkeypatch: pytest.MonkeyPatch, hours: float
):
    made = world.push(world.create(), "a", "b")
    with monkeypatch.context() as clock:
        shifted(clock, hours)
        world.must_claim("wrong", lease_seconds=-1)
    assert world.must_claim("right") == Claim(made.id, 2)
