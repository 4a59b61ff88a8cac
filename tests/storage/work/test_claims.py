"""Which increment a worker gets: each once, in order of arrival, one of a model at a time."""

from datetime import timedelta
from functools import partial

from storage.domain import IncrementStatus, now
from storage.work import leases
from storage.work.leases import Claim
from tests.storage.worlds import World, together

QUEUED, RUNNING, FAILED = IncrementStatus.QUEUED, IncrementStatus.RUNNING, IncrementStatus.FAILED


def running_by_model(world: World) -> dict[str, int]:
    running: dict[str, int] = {}
    for name in ("plants", "other"):
        for one in world.increments(world.model(name)):
            running[name] = running.get(name, 0) + (one.status is RUNNING)
    return running


def test_a_claim_raises_the_attempt_and_begins_a_lease(world: World):
    made = world.push(world.create(), "a", "b")
    claim = world.must_claim("worker-1", lease_seconds=200)
    assert claim == Claim(made.id, 1)
    held = world.look(made.id)
    assert (held.status, held.attempt, held.worker, held.crashes) == (RUNNING, 1, "worker-1", 0)
    assert held.lease_expires_at is not None
    assert timedelta(seconds=100) < held.lease_expires_at - now() <= timedelta(seconds=200)
    assert held.started_at is not None
    assert world.outcomes(made.id) == [(1, "worker-1", None)]
    assert world.statuses(made.id) == ["queued", "running"]


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
    assert len(world.outcomes(made.id)) == 1


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
        world.end(claim)
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
    world.end(world.must_claim())
    claim = world.must_claim()
    assert claim.increment_id == late.id
    world.retry(early, model)
    assert world.claim() is None
    world.end(claim)
    assert world.must_claim().increment_id == early.id


def test_one_that_was_abandoned_goes_on_before_an_earlier_one_that_is_tried_again(world: World):
    model = world.create()
    early, late = world.push(model, "a", "b"), world.push(model, "c", "d")
    world.end(world.must_claim())
    world.must_claim(lease_seconds=-1)
    world.retry(early, model)
    assert world.must_claim() == Claim(late.id, 2)
    assert world.claim() is None


def test_a_model_never_has_two_running_whatever_a_worker_saw_before(world: World):
    model = world.create()
    early, late = world.push(model, "a", "b"), world.push(model, "c", "d")
    world.end(world.must_claim())
    (seen,) = world.read(leases.runnable)
    assert seen.id == late.id
    world.retry(early, model)
    assert world.must_claim().increment_id == early.id
    taken = world.write(leases._take, seen, worker="late", lease_seconds=60, crashes=0)
    assert taken is None
    assert (world.look(late.id).status, world.look(late.id).attempt) == (QUEUED, 0)
    assert world.outcomes(late.id) == []


def test_workers_and_retries_at_once_leave_one_running_a_model(world: World):
    for name in ("plants", "other"):
        model = world.create(name)
        for number in range(4):
            world.push(model, f"{number}a", f"{number}b")
        world.end(world.must_claim())
    retries = [
        partial(world.retry, one, world.model(name))
        for name in ("plants", "other")
        for one in world.increments(world.model(name))
        if one.status is FAILED
    ]
    together(*retries, *[world.claim] * 6)
    assert running_by_model(world) == {"plants": 1, "other": 1}
