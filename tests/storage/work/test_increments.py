"""Increments as a person sees them: asked for, looked at, cancelled, tried again."""

from functools import partial

import pytest

from storage.domain import Increment, IncrementStatus, KnownClasses, Memory, Model, Promotion, Retention
from storage.errors import (
    AccreteError,
    BatchInvalid,
    ClassesAlreadyKnown,
    IdempotencyMismatch,
    IncrementNotCancellable,
    IncrementNotFound,
    IncrementNotRetryable,
    NothingToLearn,
)
from storage.history import models
from storage.material import batches, erasure
from storage.work import increments, leases, reports
from tests.storage.worlds import MAX_CRASHES, World, counts, sha256, together

QUEUED, RUNNING = IncrementStatus.QUEUED, IncrementStatus.RUNNING
FAILED, CANCELLED = IncrementStatus.FAILED, IncrementStatus.CANCELLED


def fail(world: World, increment: Increment) -> Increment:
    claim = world.must_claim()
    assert claim.increment_id == increment.id
    assert world.write(leases.end, claim, FAILED, reason="the loss is not finite")
    return world.look(increment.id)


def test_a_request_queues_what_was_asked_for(world: World):
    model = world.create()
    batch = world.upload(model, "a", "b")
    made = world.request(model, batch, promote=Promotion.MANUAL, idempotency_key="key")
    assert world.look(made.id) == made
    assert (made.status, made.attempt, made.crashes, made.cancel_requested) == (QUEUED, 0, 0, False)
    assert (made.batch_id, made.strategy, made.recipe) == (batch.id, "lwf", {"epochs": 2})
    assert (made.promote, made.known_classes, made.idempotency_key) == (Promotion.MANUAL, KnownClasses.REFUSE, "key")
    unknown_yet = (made.parent, made.version, made.promoted, made.progress, made.error, made.started_at, made.worker)
    assert unknown_yet == (None,) * 7
    assert world.attempts(made.id) == ()


def test_arrivals_count_up_and_pages_begin_with_the_latest(world: World):
    mine, other = world.create("mine"), world.create("other")
    made = []
    for pair in ("ab", "cd", "ef"):
        made.append(world.push(mine, *pair))
        world.push(other, *pair)
    assert [one.arrival for one in made] == sorted(one.arrival for one in made)
    first = world.read(reports.page, mine, limit=2, cursor=None)
    rest = world.read(reports.page, mine, limit=2, cursor=first.next_cursor)
    assert [one.increment for one in (*first.items, *rest.items)] == made[::-1]
    assert rest.next_cursor is None


def test_classes_of_the_head_are_refused(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    with pytest.raises(ClassesAlreadyKnown) as refused:
        world.push(model, "b", "c", "d")
    assert refused.value.extra == {"classes": ["b"], "duplicate_of": None}
    assert world.push(model, "c", "d").status is QUEUED


@pytest.mark.parametrize("running", [False, True])
def test_classes_of_an_unfinished_increment_are_refused(world: World, running: bool):
    model = world.create()
    world.push(model, "a", "b")
    if running:
        world.must_claim()
    with pytest.raises(ClassesAlreadyKnown) as refused:
        world.push(model, "b", "c")
    assert refused.value.extra["classes"] == ["b"]


@pytest.mark.parametrize("status", [FAILED, CANCELLED])
def test_classes_of_an_increment_without_a_version_are_free_again(world: World, status: IncrementStatus):
    model = world.create()
    first = world.push(model, "a", "b")
    if status is FAILED:
        fail(world, first)
    else:
        world.write(increments.cancel, first.id)
    assert world.push(model, "a", "b").status is QUEUED


def test_another_models_classes_do_not_matter(world: World):
    world.push(world.create("other"), "a", "b")
    assert world.push(world.create("mine"), "a", "b").status is QUEUED


def test_after_a_rollback_the_classes_that_were_left_behind_are_new_again(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d")
    world.write(models.promote, model.name, version=1)
    assert world.push(model, "c", "d").status is QUEUED


def test_the_same_archive_again_is_told_from_other_images_of_the_class(world: World):
    model = world.create()
    first = world.request(model, world.upload(model, "a", "b", content="same"))
    with pytest.raises(ClassesAlreadyKnown) as refused:
        world.request(model, world.upload(model, "a", "b", content="same"))
    assert refused.value.extra["duplicate_of"] == first.id


def test_rehearsing_takes_known_classes_along_with_a_new_one(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    rehearse = partial(world.push, model, known_classes=KnownClasses.REHEARSE)
    assert rehearse("b", "c").status is QUEUED
    assert rehearse("a", "b", "c").status is QUEUED


def test_known_classes_alone_need_stored_images_of_all_the_others(world: World):
    forgetting = world.create("without")
    world.learn(forgetting, "a", "b", "c")
    rehearse = partial(world.push, known_classes=KnownClasses.REHEARSE)
    with pytest.raises(NothingToLearn, match="'b', 'c'") as refused:  # stored, but not rehearsed
        rehearse(forgetting, "a")
    assert refused.value.extra == {"classes": ["b", "c"]}

    remembering = world.create("with", memory=Memory(per_class=2), retention=Retention.EXEMPLARS)
    world.learn(remembering, "a", "b", "c", kept=2)
    assert world.push(remembering, "d").status is QUEUED  # which will have exemplars by then
    queued = rehearse(remembering, "a")
    assert queued.status is QUEUED
    world.write(increments.cancel, queued.id)
    world.write(erasure.erase_class, world.model("with"), "b")
    with pytest.raises(NothingToLearn, match="'b'") as refused:
        rehearse(remembering, "a")
    assert refused.value.extra == {"classes": ["b"]}
    with pytest.raises(NothingToLearn, match="'b'"):
        world.retry(world.look(queued.id), world.model("with"))
    assert rehearse(remembering, "a", "b").status is QUEUED


def test_a_class_alone_needs_rehearsal(world: World):
    with pytest.raises(NothingToLearn):
        world.push(world.create("without"), "a")
    remembering = world.create("with", memory=Memory(per_class=20))
    with pytest.raises(NothingToLearn):
        world.push(remembering, "a")
    world.push(remembering, "a", "b")
    assert world.push(remembering, "c").status is QUEUED


def test_of_two_requests_for_a_class_at_once_one_is_queued(world: World):
    model = world.create()

    def ask(*labels: str) -> bool:
        try:
            world.push(model, *labels)
        except ClassesAlreadyKnown:
            return False
        return True

    answers = together(*[partial(ask, "shared", f"own-{number}") for number in range(4)])
    assert sorted(answers) == [False, False, False, True]
    assert world.rows()["increments"] == 1


def answered(world: World, model: Model, key: str, content: str) -> Increment | None:
    asked = {"archive": sha256(content), "batch": None}
    return world.read(increments.answered_before, model=model, idempotency_key=key, asked=asked)


def test_a_key_of_an_earlier_release_brings_back_what_it_made(world: World):
    model = world.create("mine")
    made = world.request(model, world.upload(model, "a", "b", content="body"), idempotency_key="key")
    assert answered(world, model, "key", "body") == made
    assert answered(world, model, "fresh", "body") is None
    assert answered(world, world.create("other"), "key", "body") is None
    with pytest.raises(IdempotencyMismatch, match="'key'") as refused:
        answered(world, model, "key", "another body")
    assert refused.value.extra == {"increment": made.id}


def test_a_key_of_an_earlier_release_holds_after_ingestion_and_for_a_batch(world: World):
    model = world.create()
    batch = world.upload(model, "a", "b", content="body")
    made = world.request(model, batch, idempotency_key="key")
    world.ingest(batch.id)
    assert answered(world, model, "key", "body") == made
    ask = partial(world.read, increments.answered_before, model=model, idempotency_key="key")
    assert ask(asked={"archive": None, "batch": batch.id}) == made
    with pytest.raises(IdempotencyMismatch):
        ask(asked={"archive": None, "batch": world.upload(model, "c", "d").id})


def test_a_queued_increment_is_cancelled_at_once(world: World):
    made = world.push(world.create(), "a", "b")
    cancelled = world.write(increments.cancel, made.id)
    assert cancelled == world.look(made.id)
    assert cancelled.status is CANCELLED
    assert cancelled.finished_at is not None
    assert world.claim() is None


def test_a_running_increment_is_asked_to_stop(world: World):
    made = world.push(world.create(), "a", "b")
    world.must_claim()
    for _ in range(2):
        asked = world.write(increments.cancel, made.id)
        assert (asked.status, asked.cancel_requested, asked.finished_at) == (RUNNING, True, None)


def test_what_is_finished_is_not_cancelled(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    failed = fail(world, world.push(model, "c", "d"))
    cancelled = world.push(model, "e", "f")
    world.write(increments.cancel, cancelled.id)
    for one in world.increments(model):
        with pytest.raises(IncrementNotCancellable, match=str(one.status)):
            world.write(increments.cancel, one.id)
    assert world.look(failed.id) == failed


def test_a_cancellation_at_the_moment_of_a_claim_is_never_lost(world: World):
    made = world.push(world.create(), "a", "b")
    cancelled, claim = together(lambda: world.write(increments.cancel, made.id), world.claim)
    assert isinstance(cancelled, Increment)
    now = world.look(made.id)
    assert now.cancel_requested
    assert now.status is (CANCELLED if claim is None else RUNNING)


def test_a_failed_increment_is_queued_again_as_if_nothing_had_been(world: World):
    model = world.create()
    failed = fail(world, world.push(model, "a", "b"))
    assert (failed.status, failed.error) == (FAILED, "the loss is not finite")
    again = world.retry(failed, model)
    assert (again.status, again.crashes, again.error, again.finished_at) == (QUEUED, 0, None, None)
    assert (again.arrival, again.attempt) == (failed.arrival, failed.attempt)
    assert world.must_claim().attempt == failed.attempt + 1


def test_a_cancelled_increment_can_be_tried_again(world: World):
    model = world.create()
    made = world.push(model, "a", "b")
    claim = world.must_claim()
    world.write(increments.cancel, made.id)
    world.write(leases.end, claim, CANCELLED)
    again = world.retry(made, model)
    assert not again.cancel_requested
    assert world.write(leases.renew, world.must_claim(), lease_seconds=60) is False


def test_an_increment_that_crashed_too_often_may_crash_as_often_again(world: World):
    model = world.create()
    made = world.push(model, "a", "b")
    while world.claim(lease_seconds=-1) is not None:
        pass
    assert world.look(made.id).status is FAILED
    world.retry(made, model)
    attempts = 0
    while world.claim(lease_seconds=-1) is not None:
        attempts += 1
    assert attempts == MAX_CRASHES


def test_only_what_failed_or_was_cancelled_is_tried_again(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    queued = world.push(model, "c", "d")
    for one in world.increments(model):
        with pytest.raises(IncrementNotRetryable, match=str(one.status)):
            world.retry(one, model)
    world.must_claim()
    with pytest.raises(IncrementNotRetryable, match="running"):
        world.retry(queued, model)


def test_what_was_learned_meanwhile_is_not_tried_again(world: World):
    model = world.create()
    failed = fail(world, world.push(model, "a", "b"))
    world.learn(model, "b", "c")
    with pytest.raises(ClassesAlreadyKnown) as refused:
        world.retry(failed, model)
    assert refused.value.extra["classes"] == ["b"]
    assert world.look(failed.id) == failed


def test_a_batch_that_decoding_left_too_small_is_not_tried_again(world: World):
    model = world.create()
    made = world.push(model, "a", "b")
    few = [image for image in world.ingest(made.batch) if image.label == "a" or image.filename == "train-0.png"]
    world.write(batches.record_ingestion, made.batch, ingested=few, rejects=(), digest=sha256("d"))
    failed = fail(world, made)
    with pytest.raises(BatchInvalid, match="'b'"):
        world.retry(failed, model)


def test_an_increment_that_is_not_there_is_said_by_id(world: World):
    calls = (increments.get, increments.cancel, partial(increments.retry, model=world.create(), rehearses=True))
    for call in calls:
        with pytest.raises(IncrementNotFound, match="nowhere"):
            world.write(call, "nowhere")


def test_a_refused_request_leaves_no_trace(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    batch = world.upload(model, "a", "c")
    before = world.rows()
    with pytest.raises(AccreteError):
        world.request(model, batch)
    assert world.rows() == before
    assert counts("a", "c") == world.read(batches.get, batch.id).classes


def test_increments_are_counted_by_state_and_those_that_train_tell_their_speed(world: World):
    model = world.create()
    world.push(model, "a", "b")
    world.push(model, "c", "d")
    assert world.read(increments.counts) == {IncrementStatus.QUEUED: 2}
    claim = world.must_claim()
    assert world.read(increments.counts) == {IncrementStatus.QUEUED: 1, IncrementStatus.RUNNING: 1}
    assert world.read(increments.speeds) == {}
    world.write(leases.renew, claim, lease_seconds=60, progress={"stage": "decoding"})
    assert world.read(increments.speeds) == {}
    world.write(leases.renew, claim, lease_seconds=60, progress={"stage": "training", "images_per_second": 12.5})
    assert world.read(increments.speeds) == {model.name: 12.5}
    world.end(claim)
    assert world.read(increments.speeds) == {}
