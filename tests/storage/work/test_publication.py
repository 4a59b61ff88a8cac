"""Publishing: all of a version or nothing, and only what is still true moves head and current."""

import time
from dataclasses import replace
from threading import Thread

import pytest

from storage.domain import IncrementStatus, Promotion, Split, StoredFile
from storage.errors import IncrementNotCancellable
from storage.history import metrics, models, versions
from storage.material import exemplars, references
from storage.work import events, increments, leases, publication
from storage.work.publication import next_number
from tests.storage.worlds import World, sha256, together

AUTO, MANUAL = Promotion.AUTO, Promotion.MANUAL


def history(world: World) -> tuple[int | None, int | None, int | None]:
    model = world.model()
    return model.head, model.current, model.previous


def test_the_first_version_goes_into_service(world: World):
    model = world.create()
    made = world.push(model, "b", "a")
    claim = world.must_claim()
    world.ingest(made.batch)
    outcome = world.outcome(claim)
    published = world.publish(claim, outcome)
    assert published is not None
    assert history(world) == (1, 1, None)
    version = world.read(versions.get, model, 1)
    assert version == published.version
    assert (version.number, version.parent, version.increment_id) == (1, None, made.id)
    assert (version.tasks, version.classes, version.task) == ((("a", "b"),), ("a", "b"), 0)
    assert (version.strategy, version.recipe) == (made.strategy, made.recipe)
    assert (version.files, version.seconds) == (outcome.files, {"training": 1.5})
    assert world.read(metrics.of_versions, [version]) == (outcome.metrics,)


def test_the_increment_says_what_became_of_it(world: World):
    model = world.create()
    published = world.learn(model, "a", "b")
    ended = world.look(published.version.increment_id)
    assert (ended.status, ended.version, ended.parent) == (IncrementStatus.SUCCEEDED, 1, None)
    assert (ended.promoted, ended.note, ended.error, ended.lease_expires_at) == (True, None, None, None)
    assert [one.outcome for one in world.attempts(ended.id)] == ["succeeded"]
    assert world.read(events.after, ended.id, 0)[-1].data["status"] == "succeeded"


def test_versions_grow_on_the_head(world: World):
    model = world.create()
    for number, labels in enumerate(("ab", "cd", "ef"), start=1):
        version = world.learn(model, *labels).version
        assert (version.number, version.parent, version.task) == (number, number - 1 or None, number - 1)
    assert world.read(versions.get, model, 3).tasks == (("a", "b"), ("c", "d"), ("e", "f"))
    assert history(world) == (3, 3, 2)


def test_a_manual_version_becomes_head_but_not_current(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    before = world.model().current_revision
    made = world.learn(model, "c", "d", promote=MANUAL).version
    assert history(world) == (2, 1, None)
    assert world.model().current_revision == before
    ended = world.look(made.increment_id)
    assert (ended.status, ended.promoted, ended.note) == (IncrementStatus.SUCCEEDED, False, "promote=manual")


def test_what_grows_on_a_version_that_was_never_promoted_is_not_either(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d", promote=MANUAL)
    made = world.learn(model, "e", "f").version
    assert made.parent == 2
    assert history(world) == (3, 1, None)
    ended = world.look(made.increment_id)
    assert (ended.promoted, ended.note) == (False, "current is version 1, not the parent, version 2")


def test_a_first_version_that_nobody_promoted_holds_back_the_second(world: World):
    model = world.create()
    world.learn(model, "a", "b", promote=MANUAL)
    made = world.learn(model, "c", "d").version
    assert history(world) == (2, None, None)
    assert world.look(made.increment_id).note == "current is no version, not the parent, version 1"


def test_who_promotes_during_training_keeps_head_and_current(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d")
    made = world.push(model, "e", "f")
    claim = world.must_claim()
    outcome = world.outcome(claim)
    world.write(models.promote, model.name, version=1)
    assert world.publish(claim, outcome) is not None
    assert history(world) == (1, 1, 2)
    ended = world.look(made.id)
    assert (ended.version, ended.parent, ended.promoted) == (3, 2, False)
    assert ended.note == "current is version 1, not the parent, version 2"
    assert world.learn(model, "g", "h").version.parent == 1


def test_a_rollback_and_back_again_during_training_is_as_if_nothing_had_been(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d")
    world.push(model, "e", "f")
    claim = world.must_claim()
    outcome = world.outcome(claim)
    for version in (1, 2):
        world.write(models.promote, model.name, version=version)
    assert world.publish(claim, outcome) is not None
    assert history(world) == (3, 3, 2)


def test_numbers_have_no_gaps_whatever_fails_and_are_not_given_again(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.push(model, "c", "d")
    world.write(leases.end, world.must_claim(), IncrementStatus.FAILED, reason="why")
    world.write(increments.cancel, world.push(model, "e", "f").id)
    world.learn(model, "g", "h")
    world.write(models.promote, model.name, version=1)
    world.write(versions.remove, world.model(), 2)
    assert next_number(world.model()) == 3
    assert world.learn(model, "i", "j").version.number == 3


@pytest.mark.parametrize("number", [1, 3])
def test_an_outcome_of_another_number_is_refused_whole(world: World, number: int):
    model = world.create()
    world.learn(model, "a", "b")
    made = world.push(model, "c", "d")
    claim = world.must_claim()
    before, rows = world.look(made.id), world.rows()
    with pytest.raises(AssertionError, match=f"version {number} after 1"):
        world.publish(claim, replace(world.outcome(claim), number=number))
    assert (world.look(made.id), world.rows()) == (before, rows)


def test_what_fails_in_the_middle_of_publishing_leaves_nothing(world: World):
    model = world.create()
    made = world.push(model, "a", "b")
    claim = world.must_claim()
    image = world.ingest(made.batch)[0]
    before, rows, model = world.look(made.id), world.rows(), world.model()
    with pytest.raises(Exception, match=r"(?i)unique"):
        world.publish(claim, replace(world.outcome(claim), exemplars={"a": [image.id, image.id]}))
    assert (world.look(made.id), world.rows(), world.model()) == (before, rows, model)


def test_a_cancellation_before_publishing_wins(world: World):
    model = world.create()
    made = world.push(model, "a", "b")
    claim = world.must_claim()
    outcome = world.outcome(claim)
    world.write(increments.cancel, made.id)
    assert world.publish(claim, outcome) is None
    assert world.rows()["versions"] == 0
    assert history(world) == (None, None, None)
    assert world.write(leases.end, claim, IncrementStatus.CANCELLED)
    assert world.look(made.id).status is IncrementStatus.CANCELLED


def test_of_cancelling_and_publishing_at_once_one_is_true(world: World):
    model = world.create()
    for number in range(4):
        made = world.push(model, f"{number}a", f"{number}b")
        claim = world.must_claim()
        outcome = world.outcome(claim)

        def cancel(increment_id: str = made.id) -> object:
            try:
                return world.write(increments.cancel, increment_id)
            except IncrementNotCancellable:
                return None

        cancelled, published = together(cancel, lambda claim=claim, outcome=outcome: world.publish(claim, outcome))  # type: ignore[misc]
        assert (cancelled is None) == (published is not None)
        if published is None:
            world.write(leases.end, claim, IncrementStatus.CANCELLED)


def test_publishing_twice_makes_one_version(world: World):
    model = world.create()
    world.push(model, "a", "b")
    claim = world.must_claim()
    outcome = world.outcome(claim)
    answers = together(*[lambda: world.publish(claim, outcome)] * 3)
    assert sum(answer is not None for answer in answers) == 1
    assert world.rows()["versions"] == 1


def test_a_promotion_waits_for_the_publication_under_way(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.push(model, "c", "d")
    claim = world.must_claim()
    outcome = world.outcome(claim)
    promotion = Thread(target=lambda: world.write(models.promote, model.name, version=1))
    with world.database.write() as connection:
        assert publication.publish(connection, claim, outcome) is not None
        promotion.start()
        time.sleep(0.2)
        assert promotion.is_alive()
    promotion.join(60)
    assert history(world) == (1, 1, 2)


def test_exemplars_belong_to_the_version(world: World):
    model = world.create()
    world.learn(model, "a", "b", kept=3)
    kept = world.read(exemplars.of_version, model_id=model.id, version=1)
    assert [image.label for image in kept] == ["a"] * 3 + ["b"] * 3
    assert {image.split for image in kept} == {Split.TRAIN}
    world.learn(model, "c", "d", kept=1)
    assert world.read(exemplars.of_version, model_id=model.id, version=1) == kept
    assert [i.label for i in world.read(exemplars.of_version, model_id=model.id, version=2)] == ["c", "d"]


def test_files_keep_their_digests(world: World):
    model = world.create()
    version = world.learn(model, "a", "b").version
    assert version.files["weights.safetensors"] == StoredFile(sha256(f"{model.id}1weights.safetensors"), 10)
    assert world.read(references.files_in_use) == {file.sha256 for file in version.files.values()}
