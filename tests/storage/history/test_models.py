"""Models: their defaults, and which of their versions is head, current and previous."""

import pytest

from storage.domain import (
    KeepPredictions,
    KeptImage,
    Memory,
    Prediction,
    Promotion,
    Reject,
    Retention,
    Scope,
    new_id,
    now,
)
from storage.errors import Invalid, ModelBusy, ModelExists, ModelNotFound, PreconditionFailed, VersionNotFound
from storage.history import exports, models, promotions, versions
from storage.material import batches, browsing, kept
from storage.material.browsing import Filter
from storage.requests import audit, idempotency, keys, predictions
from storage.work import relabelling
from tests.storage.worlds import MAX_CRASHES, World, together


def history(world: World) -> tuple[int | None, int | None, int | None]:
    model = world.model()
    return model.head, model.current, model.previous


@pytest.mark.parametrize("memory", [None, Memory(per_class=20), Memory(total=2000)])
def test_a_model_comes_back_as_it_was_made(world: World, memory: Memory | None):
    recipe = {"epochs": 3, "learning_rate": 0.1, "initial_weights": None}
    made = world.create(memory=memory, retention=Retention.EXEMPLARS, recipe=recipe)
    found = world.model()
    assert found == made
    assert (found.memory, found.retention, found.recipe) == (memory, Retention.EXEMPLARS, recipe)
    assert (found.head, found.current, found.previous, found.last_version) == (None, None, None, 0)
    assert abs((now() - found.created_at).total_seconds()) < 60


def test_a_name_is_given_once(world: World):
    world.create("plants")
    with pytest.raises(ModelExists, match="'plants'"):
        world.create("plants")
    assert world.rows()["models"] == 1


def test_of_many_who_ask_for_a_name_at_once_one_gets_it(world: World):
    def create() -> bool:
        try:
            world.create("plants")
        except ModelExists:
            return False
        return True

    assert sorted(together(*[create] * 4)) == [False, False, False, True]


def test_what_does_not_exist_is_said_by_name(world: World):
    for call in (models.get, models.lock, models.delete_model):
        with pytest.raises(ModelNotFound, match="'ferns'"):
            world.write(call, "ferns")
    with pytest.raises(ModelNotFound):
        world.read(models.by_id, new_id())
    assert world.read(models.find, new_id()) is None


def test_models_are_paged_in_the_order_of_their_names(world: World):
    for name in ("c", "a", "e", "b", "d"):
        world.create(name)
    seen: list[str] = []
    cursor = None
    while True:
        page = world.read(models.page, limit=2, cursor=cursor)
        seen += [model.name for model in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == ["a", "b", "c", "d", "e"]
    assert len(page.items) == 1


def test_a_page_that_ends_with_the_last_one_says_so(world: World):
    world.create("a")
    world.create("b")
    assert world.read(models.page, limit=2, cursor=None).next_cursor is None


@pytest.mark.parametrize("cursor", ["", "!!!!", "=", "YQ==", "AGE", "ä", "/w", "\0"])
def test_a_cursor_that_was_not_handed_out_is_refused(world: World, cursor: str):
    with pytest.raises(Invalid, match="next_cursor"):
        world.read(models.page, limit=2, cursor=cursor)


def test_defaults_change_and_the_rest_stays(world: World):
    made = world.create(memory=Memory(per_class=20))
    world.write(models.change, "plants", {"strategy": "finetune", "memory": None, "retention": Retention.NONE})
    changed = world.model()
    assert (changed.strategy, changed.memory, changed.retention) == ("finetune", None, Retention.NONE)
    assert (changed.id, changed.network, changed.created_at) == (made.id, made.network, made.created_at)
    assert world.write(models.change, "plants", {}) == changed


def test_promotion_moves_current_and_head_and_remembers_the_one_before(world: World):
    model = world.create()
    for labels in ("ab", "cd", "ef"):
        world.learn(model, *labels)
    assert history(world) == (3, 3, 2)
    world.write(models.promote, "plants", version=1)
    assert history(world) == (1, 1, 3)
    world.write(models.promote, "plants", version=3)
    assert history(world) == (3, 3, 1)


def test_promoting_what_is_in_service_changes_nothing(world: World):
    world.learn(world.create(), "a", "b")
    before = world.model()
    assert world.write(models.promote, "plants", version=1) == before


def test_promoting_current_again_takes_the_head_back_to_it(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d", promote=Promotion.MANUAL)
    assert history(world) == (2, 1, None)
    world.write(models.promote, "plants", version=1)
    assert history(world) == (1, 1, None)


@pytest.mark.parametrize("version", [0, -1, 2, 2**31, 2**70])
def test_a_version_that_is_not_there_is_not_promoted(world: World, version: int):
    world.learn(world.create(), "a", "b")
    before = world.model()
    with pytest.raises(VersionNotFound, match=str(version)):
        world.write(models.promote, "plants", version=version)
    assert world.model() == before


def test_a_deleted_version_is_not_promoted(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d")
    world.write(versions.remove, world.model(), 1)
    with pytest.raises(VersionNotFound):
        world.write(models.promote, "plants", version=1)
    assert world.model().current == 2


def test_promotion_compares_before_it_sets(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d")
    seen = world.model().current_revision
    world.write(models.promote, "plants", version=1, expected_revision=seen)
    with pytest.raises(PreconditionFailed) as refused:
        world.write(models.promote, "plants", version=2, expected_revision=seen)
    assert refused.value.extra == {"current": 1}
    assert history(world) == (1, 1, 2)


def test_of_two_who_decide_on_the_same_state_one_wins(world: World):
    model = world.create()
    for labels in ("ab", "cd", "ef"):
        world.learn(model, *labels)
    seen = world.model().current_revision

    def promote(version: int) -> int | None:
        try:
            return world.write(models.promote, "plants", version=version, expected_revision=seen).current
        except PreconditionFailed:
            return None

    won = [answer for answer in together(lambda: promote(1), lambda: promote(2)) if answer is not None]
    assert len(won) == 1
    assert history(world) == (won[0], won[0], 3)
    assert world.model().current_revision == seen + 1


def test_a_model_with_unfinished_increments_stays(world: World):
    model = world.create()
    waiting = world.push(model, "a", "b")
    with pytest.raises(ModelBusy) as refused:
        world.write(models.delete_model, "plants")
    assert refused.value.extra == {"increments": [waiting.id]}
    world.claim()
    with pytest.raises(ModelBusy):
        world.write(models.delete_model, "plants")


def test_a_deleted_model_takes_its_history_with_it_and_nobody_elses(world: World):
    grown, other = world.create("plants"), world.create("other")
    for model in (grown, other):
        published = world.learn(model, "a", "b", kept=2)
        made = Prediction(new_id(), model.id, published.version.number, (), now())
        world.write(predictions.add, [made])
        world.write(models.change, model.name, {"keep_predictions": KeepPredictions.ALL})
        image = KeptImage(made.id, 0, model.id, "0" * 64, 1, made.created_at)
        world.write(kept.add, [image], most_bytes=1, exists=lambda _: True)
        world.write(exports.request, published.version, "network.pt2")
        world.write(keys.create, name="robot", scopes={Scope.PREDICT}, model_id=model.id)
        world.write(idempotency.remember, model, key="k", asked={}, document={})
        world.write(batches.create, model_id=model.id, rejects=(Reject("scan.tiff", "no image"),))
        moved = world.read(browsing.of_model, model, Filter(labels=frozenset("a")), limit=1, cursor=None).items[0]
        world.write(relabelling.relabel, model, moved.id, "b", key_name="robot")
    of_nobody = {"audit", "packs", "released"}
    both = {table: number for table, number in world.rows().items() if table not in of_nobody}
    assert 0 not in both.values()
    world.write(models.delete_model, "plants")
    left = {table: number for table, number in world.rows().items() if table not in of_nobody}
    assert left == {table: number // 2 for table, number in both.items()}
    assert world.model("other").current == 1


def test_an_order_of_arrival_is_not_given_again(world: World):
    model = world.create("first")
    world.learn(model, "a", "b")
    last = world.push(model, "c", "d")
    for _ in range(MAX_CRASHES + 1):
        world.claim(lease_seconds=-1)
    world.write(models.delete_model, "first")
    assert world.push(world.create("second"), "a", "b").arrival > last.arrival


def test_text_keeps_its_letters(world: World):
    made = world.create("größe-日本-🌱", recipe={"ü": "🌱"})
    assert world.model("größe-日本-🌱") == made
    assert world.read(models.page, limit=1, cursor=None).items == (made,)


def test_models_are_found_by_their_ids_all_at_once(world: World):
    made = [world.create(name) for name in ("a", "b", "c")]
    found = world.read(models.of_ids, [made[0].id, made[2].id, "nobody's"])
    assert sorted(model.name for model in found) == ["a", "c"]
    assert world.read(models.of_ids, []) == []


def test_those_taught_last_come_first_and_those_without_a_version_not_at_all(world: World):
    early, late, _ = (world.create(name) for name in ("early", "late", "never"))
    world.learn(early, "a", "b")
    world.learn(late, "a", "b")
    assert [model.name for model in world.read(models.recently_trained, limit=9)] == ["late", "early"]
    world.learn(world.model("early"), "c", "d")
    assert [model.name for model in world.read(models.recently_trained, limit=1)] == ["early"]


def told(world: World) -> list[tuple[object, ...]]:
    """The record of promotions, latest first, without ids and times."""
    found = world.read(promotions.page, world.model(), limit=100, cursor=None).items
    assert all(one.created_at is not None and abs((now() - one.created_at).total_seconds()) < 60 for one in found)
    return [(one.revision, one.version, one.previous, one.key_name, one.increment_id, one.reason) for one in found]


def test_every_promotion_is_on_record(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d", promote=Promotion.MANUAL)
    key = world.write(keys.create, name="ops", scopes={Scope.TRAIN})[0]
    world.write(models.promote, "plants", version=2, key=key, reason="fewer false alarms")
    world.write(models.promote, "plants", version=2)  # changes nothing
    world.write(models.promote, "plants", version=1)
    first = world.read(versions.get, world.model(), 1)
    assert told(world) == [
        (3, 1, 2, audit.NOBODY, None, None),
        (2, 2, 1, "ops", None, "fewer false alarms"),
        (1, 1, None, None, first.increment_id, None),
    ]
    assert world.model().current_revision == 3


def test_a_promotion_that_is_refused_leaves_no_record(world: World):
    world.learn(world.create(), "a", "b")
    before = told(world)
    with pytest.raises(VersionNotFound):
        world.write(models.promote, "plants", version=2)
    with pytest.raises(PreconditionFailed):
        world.write(models.promote, "plants", version=1, expected_revision=7)
    assert told(world) == before


def test_the_record_goes_with_the_model_and_stays_when_a_version_goes(world: World):
    model = world.create()
    world.learn(model, "a", "b")
    world.learn(model, "c", "d")
    world.write(versions.remove, world.model(), 1)
    assert [one[1] for one in told(world)] == [2, 1]
    world.write(models.delete_model, "plants")
    assert world.rows()["promotions"] == 0
