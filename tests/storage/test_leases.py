"""Who may work on an increment: one worker at a time, in order of arrival, until its lease runs out."""

from datetime import timedelta
from functools import partial

import pytest

from storage import events, increments, leases
from storage.domain import Increment, IncrementStatus, now
from storage.leases import LEASE_LOST, Claim
from tests.storage.worlds import MAX_CRASHES, World, together

QUEUED, RUNNING, SUCCEEDED = IncrementStatus.QUEUED, IncrementStatus.RUNNING, IncrementStatus.SUCCEEDED
FAILED, CANCELLED = IncrementStatus.FAILED, IncrementStatus.CANCELLED


def outcomes(world: World, increment_id: str) -> list[tuple[int, str, str | None]]:
    tries = world.read(increments.attempts_of, increment_id)
    assert all((one.finished_at is None) == (one.outcome is None) for one in tries)
    return [(one.attempt, one.worker, one.outcome) for one in tries]


def statuses(world: World, increment_id: str) -> list[str]:
    steps = world.read(events.after, increment_id, 0)
    assert [step.sequence for step in steps] == list(range(1, len(steps) + 1))
    return [step.data["status"] for step in steps if step.kind == "status"]


def give_back(world: World, claim: Claim, *, crashed: bool) -> IncrementStatus | None:
    return world.write(leases.give_back, claim, reason="why", crashed=crashed, max_crashes=MAX_CRASHES)


def end(world: World, claim: Claim, status: IncrementStatus = FAILED) -> bool:
    return world.write(leases.end, claim, status, reason="why")


def running_by_model(world: World) -> dict[str, int]:
    running: dict[str, int] = {}
    for name in ("plants", "other"):
        for one in world.read(increments.page, world.model(name), limit=50, cursor=None).items:
            running[name] = running.get(name, 0) + (one.status is RUNNING)
    return running


def test_a_claim_raises_the_attempt_and_begins_a_lease(world: World):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim("worker-1", lease_seconds=20)
    assert claim == Claim(made.id, 1)
    held = world.look(made.id)
    assert (held.status, held.attempt, held.worker, held.crashes) == (RUNNING, 1, "worker-1", 0)
    assert held.lease_expires_at is not None
    assert timedelta(seconds=10) < held.lease_expires_at - now() <= timedelta(seconds=20)
    assert held.started_at is not None
    assert outcomes(world, made.id) == [(1, "worker-1", None)]
    assert statuses(world, made.id) == ["queued", "running"]


def test_nothing_to_do_is_no_claim(world: World):
    assert world.claim() is None
    world.push(world.create(), "a", "b")
    world.must_claim()
    assert world.claim() is None


def test_a_claim_knows_the_parent(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    made = world.push(model, "c", "d")
    world.must_claim()
    assert world.look(made.id).parent == 1


def test_of_many_workers_one_gets_the_increment(world: World):
    made = world.push(world.create(), "a", "b")
    won = [claim for claim in together(*[world.claim] * 8) if claim is not None]
    assert won == [Claim(made.id, 1)]
    assert len(outcomes(world, made.id)) == 1


def test_many_workers_share_many_models_without_one_twice(world: World):
    made = {world.push(world.create(f"model-{number}"), "a", "b").id for number in range(12)}

    def work() -> list[Claim]:
        return list(iter(world.claim, None))

    taken = [claim for claims in together(*[work] * 6) for claim in claims]
    assert sorted(taken, key=lambda claim: claim.increment_id) == [Claim(one, 1) for one in sorted(made)]


def test_increments_of_a_model_run_one_after_another_in_order_of_arrival(world: World):
    model = world.create()
    made = [world.push(model, f"{n}a", f"{n}b").id for n in range(3)]
    for expected in made:
        claim = world.must_claim()
        assert claim.increment_id == expected
        assert world.claim() is None
        end(world, claim)
    assert world.claim() is None


def test_another_model_is_not_kept_waiting(world: World):
    busy, idle = world.create("plants"), world.create("other")
    first, second = world.push(busy, "a", "b"), world.push(busy, "c", "d")
    third = world.push(idle, "a", "b")
    assert [world.must_claim().increment_id, world.must_claim().increment_id] == [first.id, third.id]
    assert world.claim() is None
    assert world.look(second.id).status is QUEUED


def test_runnable_is_what_a_claim_would_take(world: World):
    busy, idle = world.create("plants"), world.create("other")
    first = world.push(busy, "a", "b")
    world.push(busy, "c", "d")
    third = world.push(idle, "a", "b")
    assert [one.id for one in world.read(leases.runnable)] == [first.id, third.id]
    assert [one.id for one in world.read(leases.runnable, limit=1)] == [first.id]
    world.must_claim(lease_seconds=-1)
    world.must_claim("second")
    assert world.look(first.id).attempt == 2
    assert [one.id for one in world.read(leases.runnable)] == [third.id]


def test_one_that_is_tried_again_waits_for_a_later_one_that_runs(world: World):
    model = world.create()
    early, late = world.push(model, "a", "b"), world.push(model, "c", "d")
    end(world, world.must_claim())
    claim = world.must_claim()
    assert claim.increment_id == late.id
    world.retry(early, model)
    assert world.claim() is None
    end(world, claim)
    assert world.must_claim().increment_id == early.id


def test_one_that_was_abandoned_goes_on_before_an_earlier_one_that_is_tried_again(world: World):
    model = world.create()
    early, late = world.push(model, "a", "b"), world.push(model, "c", "d")
    end(world, world.must_claim())
    world.must_claim(lease_seconds=-1)
    world.retry(early, model)
    assert world.must_claim() == Claim(late.id, 2)
    assert world.claim() is None


def test_a_model_never_has_two_running_whatever_a_worker_saw_before(world: World):
    model = world.create()
    early, late = world.push(model, "a", "b"), world.push(model, "c", "d")
    end(world, world.must_claim())
    (seen,) = world.read(leases.runnable)
    assert seen.id == late.id
    world.retry(early, model)
    assert world.must_claim().increment_id == early.id
    taken = world.write(leases._take, seen, worker="late", lease_seconds=60, crashes=0)
    assert taken is None
    assert (world.look(late.id).status, world.look(late.id).attempt) == (QUEUED, 0)
    assert outcomes(world, late.id) == []


def test_workers_and_retries_at_once_leave_one_running_a_model(world: World):
    for name in ("plants", "other"):
        model = world.create(name)
        for number in range(4):
            world.push(model, f"{number}a", f"{number}b")
        failed = [world.must_claim() for _ in range(1)]
        end(world, failed[0])
    retries = [
        partial(world.retry, one, world.model(name))
        for name in ("plants", "other")
        for one in world.read(increments.page, world.model(name), limit=50, cursor=None).items
        if one.status is FAILED
    ]
    together(*retries, *[world.claim] * 6)
    assert running_by_model(world) == {"plants": 1, "other": 1}


def test_an_expired_lease_is_taken_over_with_a_higher_attempt(world: World):
    made = world.push(world.create(), "a", "b")
    world.must_claim("first", lease_seconds=-1)
    assert world.must_claim("second") == Claim(made.id, 2)
    held = world.look(made.id)
    assert (held.worker, held.attempt, held.crashes) == ("second", 2, 1)
    first, second = world.read(increments.attempts_of, made.id)
    assert (first.outcome, first.reason) == ("crashed", LEASE_LOST)
    assert (second.outcome, second.finished_at) == (None, None)
    assert statuses(world, made.id) == ["queued", "running", "running"]


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
        end(world, claim)
    else:
        assert world.publish(claim, world.outcome(claim)) is not None
    before = world.look(made.id)
    tries = world.read(increments.attempts_of, made.id)
    assert world.write(leases._take, seen, worker="thief", lease_seconds=60, crashes=1) is None
    assert world.look(made.id) == before
    assert world.read(increments.attempts_of, made.id) == tries


def test_whoever_comes_too_late_changes_nothing(world: World):
    model = world.create()
    made = world.push(model, "a", "b")
    late = world.must_claim("late", lease_seconds=-1)
    outcome = world.outcome(late)
    world.must_claim("new")
    before, tries, rows = world.look(made.id), world.read(increments.attempts_of, made.id), world.rows()

    assert world.write(leases.renew, late, lease_seconds=600, progress={"stage": "late"}) is None
    assert not world.write(leases.holds, late)
    assert not end(world, late, FAILED)
    assert not end(world, late, SUCCEEDED)
    assert give_back(world, late, crashed=True) is None
    assert world.publish(late, outcome) is None

    assert world.look(made.id) == before
    assert world.read(increments.attempts_of, made.id) == tries
    assert world.rows() == rows
    assert world.model().last_version == 0


@pytest.mark.parametrize("status", [FAILED, CANCELLED, SUCCEEDED])
def test_a_claim_ends_with_its_increment(world: World, status: IncrementStatus):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim("worker")
    assert world.write(leases.holds, claim)
    assert end(world, claim, status)
    ended = world.look(made.id)
    assert (ended.status, ended.lease_expires_at, ended.error) == (status, None, "why")
    assert ended.finished_at is not None
    assert outcomes(world, made.id) == [(1, "worker", str(status))]
    assert world.write(leases.renew, claim, lease_seconds=60) is None
    assert not world.write(leases.holds, claim)
    assert not end(world, claim)
    assert statuses(world, made.id) == ["queued", "running", str(status)]


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
    assert [outcome for *_, outcome in outcomes(world, made.id)] == ["crashed"] * MAX_CRASHES + ["failed"]


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
    assert {outcome for *_, outcome in outcomes(world, made.id)} == {"released"}


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
    assert statuses(world, made.id)[-1] == "cancelled"
    assert world.push(model, "a", "b").status is QUEUED


def test_one_that_is_cancelled_at_the_claim_makes_way_for_the_next_at_once(world: World):
    model = world.create()
    first, second = world.push(model, "a", "b"), world.push(model, "c", "d")
    world.must_claim(lease_seconds=-1)
    world.write(increments.cancel, first.id)
    assert world.must_claim() == Claim(second.id, 1)
    assert world.look(first.id).status is CANCELLED


def test_a_reader_who_was_cut_off_goes_on_after_what_it_saw(world: World):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim()
    world.write(events.add, made.id, kind="epoch", data={"epoch": 1})
    end(world, claim)
    everything = world.read(events.after, made.id, 0)
    assert [step.kind for step in everything] == ["status", "status", "epoch", "status"]
    assert world.read(events.after, made.id, 2) == everything[2:]
    assert world.read(events.after, made.id, 4) == ()
    assert world.read(events.after, made.id, 2**70) == ()
