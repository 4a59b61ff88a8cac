"""Strategies that are made for rehearsal say so where it is asked for, as long as no old image will be shown."""

import pytest

from losses import strategies
from tests.api.worlds import SIZE, class_zip
from trainer.recipes import known

REHEARSING = [name for name in strategies.names() if name.startswith("lucir")]
OTHERS = ["finetune", "freeze", "lwf", "lwf-bsr"]


def notices(world, name, *labels, **query):
    """What the answer to a request for an increment says beforehand; a look at it later says the same."""
    asked = world.increment(name, *labels, **query)
    assert world.http.get(f"/v1/increments/{asked['id']}").json()["notices"] == asked["notices"]
    return asked["notices"]


@pytest.mark.parametrize("strategy", REHEARSING)
def test_without_exemplars_such_a_strategy_says_at_the_post_what_to_expect_and_the_way_out(world, strategy):
    name = world.model(strategy=strategy, memory=None)
    assert notices(world, name, "cat", "dog") == []  # the first increment has no old class
    (told,) = notices(world, name, "emu", "fox")
    assert f"'{strategy}' is made for rehearsal" in told
    assert "'cat', 'dog'" in told
    assert "forgotten" in told
    assert f'PATCH /v1/models/{name} with {{"memory": {{"per_class": 20}}}}' in told
    assert "known_classes=rehearse" in told
    assert told.count(". ") == 0
    assert told.endswith(".")


@pytest.mark.parametrize("strategy", OTHERS)
def test_others_have_nothing_to_say(world, strategy):
    name = world.model(strategy=strategy, memory=None)
    for labels in (("cat", "dog"), ("emu", "fox")):
        assert notices(world, name, *labels) == []
    assert world.http.get(f"/v1/models/{name}").json()["notices"] == []


def test_a_memory_is_enough_and_one_that_comes_later_is_too(world):
    name = world.model(strategy="lucir", memory={"per_class": 2})
    assert world.http.get(f"/v1/models/{name}").json()["notices"] == []
    for labels in (("cat", "dog"), ("emu", "fox")):
        assert notices(world, name, *labels) == []
    late = world.model(strategy="lucir", memory={"total": 1})  # fewer places than classes: none is kept of any
    world.increment(late, "cat", "dog")
    asked = world.increment(late, "emu", "fox")
    assert len(asked["notices"]) == 1
    world.http.patch(f"/v1/models/{late}", json={"memory": {"per_class": 2}}).raise_for_status()
    assert world.http.get(f"/v1/increments/{asked['id']}").json()["notices"] == []


def test_known_classes_that_are_sent_are_shown_and_those_that_are_not_are_named(world):
    name = world.model(strategy="lucir-s", memory=None)
    world.version(name, "cat", "dog")
    (told,) = notices(world, name, "cat", "emu", "fox", known_classes="rehearse")
    assert "'dog'" in told
    assert "'cat'" not in told
    world.cancel_everything()
    assert notices(world, name, "cat", "dog", "emu", "fox", known_classes="rehearse") == []


def test_a_strategy_chosen_for_one_increment_says_so_too_and_again_when_it_is_tried_again(world):
    name = world.model(strategy="freeze", memory=None, recipe={})
    world.increment(name, "cat", "dog", strategy="lucir")
    asked = world.increment(name, "emu", "fox", strategy="lucir")
    assert len(asked["notices"]) == 1
    cancelled = world.http.post(f"/v1/increments/{asked['id']}/cancel").json()
    assert cancelled["notices"] == []  # nothing is to be expected of it
    again = world.http.post(f"/v1/increments/{asked['id']}/retry")
    assert (again.status_code, again.json()["notices"]) == (202, asked["notices"])


def test_later_increments_and_the_classes_of_its_own_do_not_count(world):
    name = world.model(strategy="lucir", memory=None)
    first = world.increment(name, "cat", "dog")
    world.increment(name, "emu", "fox")
    assert world.http.get(f"/v1/increments/{first['id']}").json()["notices"] == []
    claim = world.claim(first["id"])
    assert world.http.get(f"/v1/increments/{first['id']}").json()["notices"] == []
    world.publish(claim, ["cat", "dog"])
    items = world.http.get(f"/v1/models/{name}/increments").json()["items"]
    assert [len(item["notices"]) for item in items] == [1, 0]


def test_a_batch_collected_before_is_told_the_same(world):
    name = world.model(strategy="lucir", memory=None)
    world.increment(name, "cat", "dog")
    batch = world.http.post(f"/v1/models/{name}/batches", content=class_zip("emu", "fox")).json()["id"]
    answer = world.http.post(f"/v1/models/{name}/increments", json={"batch_id": batch})
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["notices"]) == 1


def test_a_model_whose_default_is_such_a_strategy_says_so_when_it_is_made_and_changed(world):
    body = {"name": f"told-{SIZE}", "image_size": SIZE, "strategy": "lucir-br", "memory": None}
    answer = world.http.post("/v1/models", json=body)
    assert answer.status_code == 201
    (told,) = answer.json()["notices"]
    assert "'lucir-br' is made for rehearsal" in told
    assert '{"memory": {"per_class": 20}}' in told
    assert "'lwf-bsr'" in told
    path = f"/v1/models/{body['name']}"
    assert world.http.patch(path, json={"memory": {"per_class": 5}}).json()["notices"] == []
    assert world.http.patch(path, json={"memory": None}).json()["notices"] == [told]
    world.version(body["name"], "cat", "dog")
    (later,) = world.http.get(path).json()["notices"]
    assert "'lwf-bsr'" not in later  # the heads are of another kind by now


def test_the_list_of_strategies_says_which_are_made_for_rehearsal(http):
    items = http.get("/v1/strategies").json()["items"]
    assert [item["name"] for item in items if item["needs_exemplars"]] == REHEARSING
    assert all(known(name).without_exemplars for name in REHEARSING)
    schema = http.get("/openapi.json").json()["components"]["schemas"]["StrategyOut"]["properties"]["needs_exemplars"]
    assert "rehearsal" in schema["description"]
