"""Models over HTTP: their defaults, what is refused, and what becomes of their names."""

import json

import pytest

from storage.domain import IncrementStatus
from tests.api.worlds import SIZE, problem

JSON = {"Content-Type": "application/json"}


def test_a_model_needs_nothing_but_a_name(http):
    answer = http.post("/v1/models", json={"name": "only-a-name"})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/models/only-a-name"
    created = answer.json()
    assert created.pop("created_at").endswith("Z")
    assert created == {
        "name": "only-a-name",
        "network": "resnet32",
        "image_size": 32,
        "channels": 3,
        "strategy": "lwf-bsr",
        "recipe": {},
        "memory": {"per_class": 20},
        "retention": "all",
        "keep_predictions": "none",
        "head": None,
        "current": None,
        "previous": None,
        "notices": [],
        "classes": [],
    }
    assert http.get("/v1/models/only-a-name").json() | {"created_at": None} == created | {"created_at": None}


def test_every_default_can_be_chosen(http, world):
    chosen = {
        "network": "mobilenet_v3_small",
        "image_size": 64,
        "channels": 1,
        "strategy": "finetune",
        "recipe": {"preset": "quick", "epochs": 3},
        "memory": {"total": 2000},
        "retention": "exemplars",
    }
    seen = http.get(f"/v1/models/{world.model(**chosen)}").json()
    assert {name: seen[name] for name in chosen} == chosen
    assert http.get(f"/v1/models/{world.model(memory=None)}").json()["memory"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"name": "köln"}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"name": 5}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": "m", "image_size": -1}, "image_size"),
        ({"name": "m", "image_size": 10**30}, "image_size"),
        ({"name": "m", "image_size": 32.5}, "image_size"),
        ({"name": "m", "channels": 2}, "channels"),
        ({"name": "m", "channels": None}, "channels"),
        ({"name": "m", "memory": {}}, "memory"),
        ({"name": "m", "memory": {"per_class": 1, "total": 1}}, "memory"),
        ({"name": "m", "memory": {"per_class": 0}}, "memory.per_class"),
        ({"name": "m", "memory": {"total": -1}}, "memory.total"),
        ({"name": "m", "memory": 20}, "memory"),
        ({"name": "m", "retention": "forever"}, "retention"),
        ({"name": "m", "recipe": [1]}, "recipe"),
        ({"name": "m", "netwrok": "resnet32"}, "netwrok"),
        ({"name": "m", "\ud800": 1}, "body"),
    ],
)
def test_a_faulty_field_is_named(http, body, field):
    refused = problem(http.post("/v1/models", content=json.dumps(body), headers=JSON), 422, "request-invalid")
    assert field in [fault["field"] for fault in refused["errors"]]
    assert refused["detail"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", JSON),
        (b"{", JSON),
        (b'{"name": "m"}', {"Content-Type": "text/plain"}),
        (b'{"name": "m"}', {}),
        (b"[]", JSON),
        (b"null", JSON),
        (b"name=m", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"\xff\xfe", JSON),
        (b"[" * 100_000, JSON),
        (b'{"name": "m", "image_size": ' + b"1" * 5000 + b"}", JSON),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(http, body, headers):
    answer = http.post("/v1/models", content=body, headers=headers)
    assert answer.status_code in {400, 413, 415, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_a_name_is_given_once(http, world):
    name = world.model()
    assert name in problem(http.post("/v1/models", json={"name": name}), 409, "model-exists")["detail"]


def test_an_unknown_strategy_is_answered_with_the_known_ones(http):
    refused = problem(http.post("/v1/models", json={"name": "m", "strategy": "lfw"}), 422, "unknown-strategy")
    assert refused["known"] == [item["name"] for item in http.get("/v1/strategies").json()["items"]]
    assert all(name in refused["detail"] for name in refused["known"])


@pytest.mark.parametrize("network", ["resnet3", "", "../resnet32", "fasterrcnn_resnet50_fpn"])
def test_an_unknown_network_is_answered_with_the_known_ones(http, network):
    refused = problem(http.post("/v1/models", json={"name": "m", "network": network}), 422, "unknown-network")
    assert "resnet32" in refused["detail"]


def test_a_network_that_cannot_take_such_small_images_is_refused(http):
    body = {"name": "m", "network": "alexnet", "image_size": 16}
    assert "16" in problem(http.post("/v1/models", json=body), 422, "unknown-network")["detail"]


@pytest.mark.parametrize(
    ("recipe", "field", "permitted"),
    [
        ('{"epochs": 0}', "epochs", "at least 1 and at most 2,000"),
        ('{"learning_rate": NaN}', "learning_rate", "at most 10"),
        ('{"learning_rate": 1e999}', "learning_rate", "at most 10"),
        ('{"epoch": 3}', "epoch", "epochs"),
        ('{"preset": "slow"}', "preset", "quick"),
        ('{"preset": []}', "preset", "quick"),
        ('{"initial_weights": "../../etc/passwd"}', "initial_weights", "plain file name"),
        ('{"\\ud800": 1}', "recipe", "epochs"),
    ],
)
def test_a_recipe_out_of_range_names_field_and_range(http, recipe, field, permitted):
    body = f'{{"name": "m", "recipe": {recipe}}}'
    refused = problem(http.post("/v1/models", content=body, headers=JSON), 422, "recipe-invalid")
    assert refused["faults"][0]["field"] == field
    assert permitted in refused["detail"]


@pytest.mark.parametrize("strategy", ["lwm", "lucir-bsr"])
def test_a_strategy_that_cannot_train_the_network_is_refused_by_name_and_reason(http, strategy):
    body = {"name": "m", "network": "vgg11", "strategy": strategy}
    detail = problem(http.post("/v1/models", json=body), 422, "strategy-unfit")["detail"]
    assert "vgg11" in detail
    assert "ResNet" in detail
    problem(http.get("/v1/models/m"), 404, "model-not-found")


def test_joint_training_needs_every_image(http, world):
    refused = problem(
        http.post("/v1/models", json={"name": "m", "strategy": "joint", "retention": "exemplars"}),
        422,
        "strategy-unfit",
    )
    assert "retention" in refused["detail"]
    path = f"/v1/models/{world.model(strategy='joint')}"
    problem(http.patch(path, json={"retention": "none"}), 422, "strategy-unfit")
    assert http.get(path).json()["retention"] == "all"


def test_models_are_listed_page_by_page_in_the_order_of_their_names(http, world):
    made = {world.model() for _ in range(5)}
    seen: list[str] = []
    cursor = None
    while True:
        page = http.get("/v1/models", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 2
        seen += [item["name"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == sorted(set(seen))
    assert made <= set(seen)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=1001", "limit=x", "limit=" + "9" * 40])
def test_a_limit_out_of_range_is_refused(http, query):
    assert problem(http.get(f"/v1/models?{query}"), 422, "request-invalid")["errors"][0]["field"] == "limit"


@pytest.mark.parametrize("cursor", ["x", "%C3%A4", "_w", "a" * 5000])
def test_a_cursor_that_is_none_of_ours_is_refused(http, cursor):
    assert "next_cursor" in problem(http.get(f"/v1/models?cursor={cursor}"), 422, "invalid")["detail"]


def test_defaults_of_coming_increments_can_be_changed_one_by_one(http, world):
    path = f"/v1/models/{world.model()}"
    before = http.get(path).json()
    assert http.patch(path, json={"strategy": "finetune"}).json() == before | {"strategy": "finetune"}
    assert http.patch(path, json={"recipe": {"epochs": 7}}).json()["recipe"] == {"epochs": 7}
    assert http.patch(path, json={"memory": None}).json()["memory"] is None
    assert http.patch(path, json={"memory": {"total": 9}}).json()["memory"] == {"total": 9}
    changed = http.patch(path, json={}).json()
    assert changed == before | {"strategy": "finetune", "recipe": {"epochs": 7}, "memory": {"total": 9}}
    assert http.get(path).json() == changed


def test_changes_are_checked_against_what_stays(http, world):
    path = f"/v1/models/{world.model()}"
    problem(http.patch(path, json={"strategy": "none"}), 422, "unknown-strategy")
    problem(http.patch(path, json={"recipe": {"epochs": -1}}), 422, "recipe-invalid")
    problem(http.patch(path, json={"network": "alexnet"}), 422, "request-invalid")
    problem(http.patch("/v1/models/nobody", json={}), 404, "model-not-found")


def test_a_deleted_model_is_gone_and_its_name_free(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    assert http.post(f"/v1/models/{name}/predictions", content=b"no image").status_code == 422
    assert http.delete(f"/v1/models/{name}").status_code == 204
    for path in (f"/v1/models/{name}", f"/v1/models/{name}/versions", f"/v1/models/{name}/current"):
        problem(http.get(path), 404, "model-not-found")
    problem(http.delete(f"/v1/models/{name}"), 404, "model-not-found")
    assert http.post("/v1/models", json={"name": name, "image_size": SIZE}).json()["current"] is None
    problem(http.post(f"/v1/models/{name}/predictions", content=b"no image"), 409, "no-version-yet")


def test_a_model_at_work_is_not_deleted(http, world):
    name = world.model()
    claim = world.claim(world.increment(name, "cat", "dog")["id"])
    refused = problem(http.delete(f"/v1/models/{name}"), 409, "model-busy")
    assert refused["increments"] == [claim.increment_id]
    world.end(claim, IncrementStatus.CANCELLED)
    assert http.delete(f"/v1/models/{name}").status_code == 204


@pytest.mark.parametrize("name", ["nobody", "%00", "..%2f..", "%252e%252e", "%ff", "a" * 5000, "%E2%80%AE", "*"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_no_name_is_more_than_unknown(http, method, name):
    answer = http.request(method, f"/v1/models/{name}", json={} if method == "PATCH" else None)
    assert answer.status_code in {404, 405, 422}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["PUT", "POST", "OPTIONS", "TRACE"])
def test_a_method_that_is_not_there_is_answered_with_those_that_are(http, world, method):
    answer = http.request(method, f"/v1/models/{world.model()}")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
