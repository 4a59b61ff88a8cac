"""Versions over HTTP: lineage, metrics, files, and which one is in service."""

import hashlib
import json

import pytest

from storage.domain import Scope
from storage.requests import keys
from tests.api.worlds import class_zip, picture, problem, running
from trainer.networks import load_version


@pytest.fixture(scope="module")
def grown(shared_world):
    """Name of a model with three versions, one after the other, that no test changes."""
    name = shared_world.model()
    for labels in (("cat", "dog"), ("emu", "fox"), ("gnu", "hen", "ibis")):
        shared_world.version(name, *labels)
    return name


def current(http, name):
    """Current, previous, and the ETag that names this state."""
    answer = http.get(f"/v1/models/{name}/current")
    assert answer.status_code == 200
    return answer.json()["version"], answer.json()["previous"], answer.headers["etag"]


def put(http, name, version, **headers):
    """Promote a version."""
    return http.put(f"/v1/models/{name}/current", json={"version": version}, headers=headers)


# What there is


def test_versions_tell_their_lineage(http, grown):
    page = http.get(f"/v1/models/{grown}/versions").json()
    assert page["next_cursor"] is None
    assert [(v["version"], v["parent"], v["task"], v["current"], v["head"]) for v in page["items"]] == [
        (1, None, 0, False, False),
        (2, 1, 1, False, False),
        (3, 2, 2, True, True),
    ]
    last = page["items"][-1]
    assert last["tasks"] == [["cat", "dog"], ["emu", "fox"], ["gnu", "hen", "ibis"]]
    assert last["classes"] == ["cat", "dog", "emu", "fox", "gnu", "hen", "ibis"]
    assert last == http.get(f"/v1/models/{grown}/versions/3").json()
    assert http.get(f"/v1/increments/{last['increment_id']}").json()["version"] == 3
    model = http.get(f"/v1/models/{grown}").json()
    assert (model["head"], model["current"], model["previous"], model["classes"]) == (3, 3, 2, last["classes"])


def test_versions_come_page_by_page(http, grown):
    path = f"/v1/models/{grown}/versions"
    first = http.get(path, params={"limit": 2}).json()
    second = http.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [v["version"] for v in first["items"] + second["items"]] == [1, 2, 3]
    assert second["next_cursor"] is None


def test_a_model_without_versions_has_an_empty_list(http, world):
    assert http.get(f"/v1/models/{world.model()}/versions").json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("number", ["4", "0", "-1", "99999999999", "9" * 30])
@pytest.mark.parametrize("rest", ["", "/metrics", "/files/version.json"])
def test_a_version_that_is_not_there(http, grown, number, rest):
    problem(http.get(f"/v1/models/{grown}/versions/{number}{rest}"), 404, "version-not-found")


@pytest.mark.parametrize("number", ["x", "1.5", "%00", "1e3", "9" * 5000])
def test_a_version_that_is_no_number(http, grown, number):
    answer = http.get(f"/v1/models/{grown}/versions/{number}")
    assert answer.status_code in {404, 422}
    assert answer.headers["content-type"] == "application/problem+json"


# Files


def test_a_versions_files_are_all_one_needs_to_predict(http, world, grown, tmp_path):
    version = http.get(f"/v1/models/{grown}/versions/2").json()
    for name, file in version["files"].items():
        answer = http.get(f"/v1/models/{grown}/versions/2/files/{name}")
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        assert len(answer.content) == file["bytes"]
        assert answer.headers["etag"] == f'"{file["sha256"]}"'
        (tmp_path / name).write_bytes(answer.content)
    loaded = load_version(tmp_path)
    offline = loaded.top_k(loaded.probabilities([picture(1)]), 4)[0]
    path = f"/v1/models/{grown}/predictions"
    online = http.post(path, params={"version": 2, "top_k": 4}, content=picture(1)).json()["predictions"][0]
    assert [one["label"] for one in online] == [label for label, _ in offline]
    # 1e-5, as a service may compute otherwise than PyTorch does at first: whichever way it measures to be faster
    assert [one["probability"] for one in online] == pytest.approx([share for _, share in offline], abs=1e-5)


@pytest.mark.parametrize("file", ["weights.pth", "..%2fversion.json", "%00", ""])
def test_a_file_that_is_not_there(http, grown, file):
    assert http.get(f"/v1/models/{grown}/versions/1/files/{file}", follow_redirects=True).status_code in {404, 405}


# Metrics


def test_a_version_has_every_metric_twice(http, grown):
    version = http.get(f"/v1/models/{grown}/versions/3").json()
    metrics = http.get(f"/v1/models/{grown}/versions/3/metrics").json()
    assert (metrics["model"], metrics["version"], metrics["classes"]) == (grown, 3, version["classes"])
    assert metrics["tasks"] == version["tasks"]
    assert metrics["test_images"] == [20, 20, 30]
    for form in ("tag", "taw"):
        assert len(metrics[form]["accuracy"]) == 3
        assert set(metrics[form]["per_class"]) == set(version["classes"])
        assert sum(count for _, _, count in metrics[form]["confusion"]) == 70
        assert version["summary"][form] == {
            "average_accuracy": metrics[form]["average_accuracy"],
            "forgetting": metrics[form]["forgetting"],
        }
    assert metrics["taw"]["average_accuracy"] >= metrics["tag"]["average_accuracy"]
    assert len(metrics["imbalance"]["tasks"]) == 3
    assert http.get(f"/v1/models/{grown}/versions/1/metrics").json()["imbalance"] is None


def test_the_curves_of_a_model_are_the_metrics_of_its_versions(http, grown):
    drawn = http.get(f"/v1/models/{grown}/metrics").json()
    assert (drawn["version"], drawn["versions"]) == (3, [1, 2, 3])
    each = [http.get(f"/v1/models/{grown}/versions/{n}/metrics").json() for n in (1, 2, 3)]
    for form in ("tag", "taw"):
        assert drawn[form]["matrix"] == [one[form]["accuracy"] for one in each]
        assert [len(row) for row in drawn[form]["matrix"]] == [1, 2, 3]
        for curve in ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer"):
            assert drawn[form][curve] == [one[form][curve] for one in each]
    earlier = http.get(f"/v1/models/{grown}/metrics", params={"version": 2}).json()
    assert (earlier["versions"], earlier["tag"]["matrix"]) == ([1, 2], drawn["tag"]["matrix"][:2])


def test_curves_follow_the_ancestors_after_a_rollback(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu", "fox")
    assert put(http, name, 1).status_code == 200
    assert world.version(name, "gnu", "hen") == 3
    assert http.get(f"/v1/models/{name}/metrics").json()["versions"] == [1, 3]
    assert http.get(f"/v1/models/{name}/metrics", params={"version": 2}).json()["versions"] == [1, 2]


@pytest.mark.parametrize("query", ["", "?version=1"])
def test_the_curves_are_a_picture_too(http, grown, query):
    answer = http.get(f"/v1/models/{grown}/metrics.png{query}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert answer.content.endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize("name", ["metrics", "metrics.png"])
def test_metrics_of_what_is_not_there(http, world, grown, name):
    assert "no version yet" in problem(http.get(f"/v1/models/{world.model()}/{name}"), 409, "no-version-yet")["detail"]
    problem(http.get(f"/v1/models/nobody/{name}"), 404, "model-not-found")
    problem(http.get(f"/v1/models/{grown}/{name}?version=9"), 404, "version-not-found")
    problem(http.get(f"/v1/models/{grown}/{name}?version=99999999999"), 404, "version-not-found")
    problem(http.get(f"/v1/models/{grown}/{name}?version=0"), 422, "request-invalid")


# In service


@pytest.fixture
def name(world):
    """A model with two versions."""
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu", "fox")
    return name


def test_nothing_is_in_service_at_first(http, world):
    assert current(http, world.model())[:2] == (None, None)


def test_promoting_and_rolling_back_swap_current_and_previous(http, name):
    version, previous, etag = current(http, name)
    assert (version, previous) == (2, 1)
    answer = put(http, name, 1)
    revision = answer.json()["revision"]
    assert answer.json() == {"model": name, "version": 1, "previous": 2, "revision": revision}
    assert answer.headers["etag"] != etag
    assert current(http, name) == (1, 2, answer.headers["etag"])
    assert http.get(f"/v1/models/{name}").json()["head"] == 1
    assert put(http, name, 2).json() == {"model": name, "version": 2, "previous": 1, "revision": revision + 1}


def test_promoting_what_is_current_changes_nothing(http, name):
    before = current(http, name)
    assert put(http, name, 2).headers["etag"] == before[2]
    assert current(http, name) == before


def test_a_promotion_decided_on_an_old_state_is_refused(http, name):
    _, _, etag = current(http, name)
    assert put(http, name, 1, **{"If-Match": etag}).status_code == 200
    refused = problem(put(http, name, 2, **{"If-Match": etag}), 412, "precondition-failed")
    assert refused["current"] == 1
    assert current(http, name)[0] == 1
    assert put(http, name, 2, **{"If-Match": current(http, name)[2]}).status_code == 200
    assert put(http, name, 1, **{"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize(
    "condition", ["", "x", '"x"', "W/{}", "-1", '"' + "9" * 5000 + '"', '"x", W/{}', "1 2", '{}x"'.replace("{}", "")]
)
def test_a_condition_that_does_not_hold_changes_nothing(http, name, condition):
    etag = current(http, name)[2]
    problem(put(http, name, 1, **{"If-Match": condition.format(etag)}), 412, "precondition-failed")
    assert current(http, name)[0] == 2


@pytest.mark.parametrize("condition", ["{}", '"x", {}', '{},"y"', 'W/"z" ,{}', "*"])
def test_one_tag_of_a_list_is_enough(http, name, condition):
    etag = current(http, name)[2]
    assert put(http, name, 1, **{"If-Match": condition.format(etag)}).status_code == 200


@pytest.mark.parametrize(("condition", "status"), [("{}", 412), ("W/{}", 412), ("*", 412), ('"x"', 200)])
def test_a_promotion_may_ask_that_the_state_is_another_one(http, name, condition, status):
    etag = current(http, name)[2]
    assert put(http, name, 1, **{"If-None-Match": condition.format(etag)}).status_code == status


@pytest.mark.parametrize(
    "body", ['{"version": 0}', '{"version": -1}', '{"version": "x"}', '{"version": null}', "{}", "2"]
)
def test_what_is_no_version_is_not_promoted(http, name, body):
    answer = http.put(f"/v1/models/{name}/current", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422, "request-invalid")


@pytest.mark.parametrize("number", [3, 2**31, 10**30])
def test_a_version_that_never_was_is_not_promoted(http, name, number):
    body = json.dumps({"version": number})
    answer = http.put(f"/v1/models/{name}/current", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 404, "version-not-found")
    problem(put(http, "nobody", 1), 404, "model-not-found")


def test_a_manual_version_waits_with_the_reason(http, world):
    name = world.model()
    world.version(name, "cat", "dog", promote="manual")
    increment = http.get(f"/v1/models/{name}/increments").json()["items"][0]
    assert (increment["promoted"], increment["note"]) == (False, "promote=manual")
    assert current(http, name)[0] is None
    problem(http.post(f"/v1/models/{name}/predictions", content=picture(1)), 409, "no-version-yet")
    assert http.post(f"/v1/models/{name}/predictions?version=1", content=picture(1)).json()["version"] == 1
    assert put(http, name, 1).status_code == 200
    assert http.post(f"/v1/models/{name}/predictions", content=picture(1)).json()["version"] == 1


# The record of promotions


def promoted(http, name):
    """What is on record, latest first."""
    return http.get(f"/v1/models/{name}/promotions").json()["items"]


def test_promotions_are_on_record_with_who_and_why(http, name):
    first = http.get(f"/v1/models/{name}/versions/1").json()["increment_id"]
    body = {"version": 1, "reason": "größe: fewer\nfalse alarms"}
    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        assert http.put(f"/v1/models/{name}/current", json=body, headers=key).status_code == 200
    other = http.put(f"/v1/models/{name}/current", json=body | {"reason": "another"}, headers=key)
    problem(other, 422, "idempotency-mismatch")
    found = promoted(http, name)
    assert [(one["revision"], one["version"], one["previous"]) for one in found] == [(3, 1, 2), (2, 2, 1), (1, 1, None)]
    assert (found[0]["key"], found[0]["reason"], found[0]["increment_id"]) == ("no key needed", body["reason"], None)
    assert (found[2]["key"], found[2]["reason"], found[2]["increment_id"]) == (None, None, first)
    assert all(one["created_at"].endswith("Z") for one in found)
    page = http.get(f"/v1/models/{name}/promotions?limit=2").json()
    rest = http.get(f"/v1/models/{name}/promotions", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert page["items"] + rest["items"] == found
    problem(http.get("/v1/models/nobody/promotions"), 404, "model-not-found")


def test_a_secret_in_a_reason_is_on_no_record(http, name):
    secret = keys.PREFIX + "x" * 40
    assert http.put(f"/v1/models/{name}/current", json={"version": 1, "reason": f"tried {secret}"}).status_code == 200
    assert promoted(http, name)[0]["reason"] == "tried accrete_***"
    assert secret not in http.get("/v1/audit").text


@pytest.mark.parametrize("reason", ["", "a\0b", "x" * 1001])
def test_a_reason_that_cannot_be_kept_is_refused(http, name, reason):
    refused = http.put(f"/v1/models/{name}/current", json={"version": 1, "reason": reason})
    assert "reason" in str(problem(refused, 422, "request-invalid")["errors"])
    assert len(promoted(http, name)) == 2


def test_the_name_of_the_key_is_on_record(settings_for, tmp_path):
    with running(settings_for(tmp_path, keys="required")) as world:
        with world.database.write() as connection:
            secret = keys.create(connection, name="ops at night", scopes={Scope.TRAIN})[1]
        world.http.headers["Authorization"] = f"Bearer {secret}"
        model = world.model()
        world.version(model, "cat", "dog", promote="manual")
        assert put(world.http, model, 1).status_code == 200
        assert [one["key"] for one in promoted(world.http, model)] == ["ops at night"]


# Deleting


def test_current_and_head_are_not_deleted(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu", "fox", promote="manual")
    assert "current" in problem(http.delete(f"/v1/models/{name}/versions/1"), 409, "version-in-use")["detail"]
    assert "head" in problem(http.delete(f"/v1/models/{name}/versions/2"), 409, "version-in-use")["detail"]


def test_a_deleted_version_is_gone_and_its_row_of_the_matrix_stays(http, world, name):
    path = f"/v1/models/{name}/versions/1"
    files, matrix = http.get(path).json()["files"], http.get(f"/v1/models/{name}/metrics").json()["tag"]["matrix"]
    predict = f"/v1/models/{name}/predictions?version=1"
    assert http.post(predict, content=picture(1)).status_code == 200
    assert http.delete(path).status_code == 204
    for gone in (path, f"{path}/metrics", f"{path}/files/version.json"):
        problem(http.get(gone), 404, "version-not-found")
    problem(http.delete(path), 404, "version-not-found")
    problem(http.post(predict, content=picture(1)), 404, "version-not-found")
    problem(put(http, name, 1), 404, "version-not-found")
    assert [v["version"] for v in http.get(f"/v1/models/{name}/versions").json()["items"]] == [2]
    assert http.get(f"/v1/models/{name}/metrics").json()["tag"]["matrix"] == matrix
    assert not any(world.blobs.exists(file["sha256"]) for file in files.values())


def test_a_version_that_is_being_trained_from_is_not_deleted(http, world, name):
    world.claim(http.post(f"/v1/models/{name}/increments", content=class_zip("gnu", "hen")).json()["id"])
    put(http, name, 1)
    problem(http.delete(f"/v1/models/{name}/versions/2"), 409, "version-in-use")
