"""Versions that do not load: not promoted, and replaced by the last one that does, for all to see."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.api.http.test_telemetry import value
from tests.api.worlds import World, eventually, network_onnx, picture, problem, running
from trainer.networks import EvaluationTransform, IncrementalNetwork

GRAPH = "network.onnx"


def predict(world, name, **query):
    """Ask for a prediction."""
    return world.http.post(f"/v1/models/{name}/predictions", params=query, content=picture(1))


def damage(world: World, name: str, number: int, *, file: str = GRAPH, missing: bool = False) -> Callable[[], None]:
    """Flip a bit of a version's file, or take it away; a function that puts it right again."""
    digest = world.http.get(f"/v1/models/{name}/versions/{number}").json()["files"][file]["sha256"]
    path = world.settings.home / "blobs" / digest[:2] / digest
    whole = path.read_bytes()
    path.unlink()
    if not missing:
        broken = bytearray(whole)
        broken[len(broken) // 2] ^= 1
        path.write_bytes(broken)

    def repair() -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(whole)

    return repair


def fault(world, name):
    """What readiness says of a model, which is ready all the same."""
    answer = world.http.get("/readyz")
    assert answer.status_code == 200
    found = answer.json()["checks"].get(f"model {name}")
    assert (answer.json()["status"] == "degraded") == any(key.startswith("model ") for key in answer.json()["checks"])
    return found


def protocol_ready(world, name, number=None):
    """What the Open Inference Protocol says of a model or a version: the status, and the word in the body."""
    path = f"/v2/models/{name}" + ("" if number is None else f"/versions/{number}")
    answer = world.http.get(f"{path}/ready")
    assert answer.json()["name"] == name
    assert ("cannot be loaded" in answer.json().get("error", "")) == (answer.status_code != 200)
    return answer.status_code, answer.json()["ready"]


def described(world, name, number=None):
    """How many classes it says the answers have."""
    document = world.http.get(f"/v2/models/{name}" + ("" if number is None else f"/versions/{number}")).json()
    assert document["outputs"][0]["shape"] == [-1, len(document["parameters"]["labels"])]
    return len(document["parameters"]["labels"])


def ready(world):
    """Whether all that is loaded at a start has been, as a function."""
    return lambda: world.http.get("/readyz").status_code == 200


@pytest.fixture
def name(world):
    """A model with a version in service, which was asked for, and a second one that waits."""
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu", "fox", promote="manual")
    assert predict(world, name).json()["version"] == 1
    return name


# Promotion


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("file", [GRAPH, "version.json"])
@pytest.mark.parametrize("asked_before", [False, True], ids=["from disk", "in memory"])
def test_a_version_whose_files_are_damaged_is_not_promoted(world, name, file, missing, asked_before):
    http, path = world.http, f"/v1/models/{name}/current"
    if asked_before:
        assert predict(world, name, version=2).status_code == 200
    repair = damage(world, name, 2, file=file, missing=missing)
    before, model = http.get(path), http.get(f"/v1/models/{name}").json()
    headers = {"If-Match": before.headers["ETag"], "Idempotency-Key": "again"}
    refused = problem(http.put(path, json={"version": 2}, headers=headers), 409, "version-unfit")
    assert "Version 2 of model" in refused["detail"]
    assert "Nothing was changed" in refused["detail"]
    after = http.get(path)
    assert (after.json(), after.headers["ETag"]) == (before.json(), before.headers["ETag"])
    assert http.get(f"/v1/models/{name}").json() == model
    assert predict(world, name).json()["version"] == 1
    assert fault(world, name) is None
    repair()
    assert http.put(path, json={"version": 2}, headers=headers).json()["version"] == 2
    assert predict(world, name).json()["version"] == 2


def no_graph(_network: IncrementalNetwork, _transform: EvaluationTransform) -> bytes:
    """A file that ONNX Runtime cannot read."""
    return b"no graph"


def no_numbers(network: IncrementalNetwork, transform: EvaluationTransform) -> bytes:
    """A graph whose answers are no numbers."""
    return network_onnx(network, replace(transform, std=(1e-45, 1e-45, 1e-45)))


def one_class_more(network: IncrementalNetwork, transform: EvaluationTransform) -> bytes:
    """A graph of one class more than the version has."""
    wider = copy.deepcopy(network)
    wider.add_task(1)
    return network_onnx(wider, transform)


def of_other_images(network: IncrementalNetwork, transform: EvaluationTransform) -> bytes:
    """A graph that takes larger images."""
    return network_onnx(network, replace(transform, image_size=16))


@pytest.mark.parametrize(
    "published",
    [
        {"rewrite": {"tasks": [["cat", "dog"], ["fox", "emu"]]}},  # not the labels of its row
        {"rewrite": {"tasks": None}},
        {"rewrite": {"format": 99}},
        {"rewrite": {"channels": 1}},
        {"rewrite": {"image_size": 16}},
        {"rewrite": {"files": {GRAPH: {"sha256": "0" * 64, "bytes": 1}}}},
        *({"graph": graph} for graph in (no_graph, no_numbers, one_class_more, of_other_images)),
    ],
)
def test_a_version_that_is_not_what_it_says_is_not_promoted(world, published):
    name = world.model()
    world.version(name, "cat", "dog")
    asked = world.increment(name, "emu", "fox", promote="manual")
    world.publish(world.claim(asked["id"]), ["emu", "fox"], **published)
    problem(world.http.put(f"/v1/models/{name}/current", json={"version": 2}), 409, "version-unfit")
    assert world.http.get(f"/v1/models/{name}/current").json()["version"] == 1
    refused = problem(predict(world, name, version=2), 503, "version-unloadable")
    assert "cannot be loaded" in refused["detail"]


def test_a_version_of_an_earlier_release_is_served_by_torch_until_it_has_its_graph(world):
    name = world.model()
    world.publish(world.claim(world.increment(name, "cat", "dog")["id"]), ["cat", "dog"], graph=None)
    first = predict(world, name).json()
    assert first["version"] == 1
    assert sum(ranked["probability"] for ranked in first["predictions"][0]) == pytest.approx(1, abs=1e-5)
    assert fault(world, name) is None
    again = predict(world, name, version=1).json()
    assert again["predictions"] == first["predictions"]


def test_what_is_refused_anyway_is_not_loaded_first(world, name):
    damage(world, name, 2)
    path = f"/v1/models/{name}/current"
    problem(world.http.put(path, json={"version": 2}, headers={"If-Match": '"99"'}), 412, "precondition-failed")
    problem(world.http.put(path, json={"version": 3}), 404, "version-not-found")
    problem(world.http.put(path, json={"version": 2}), 409, "version-unfit")


def test_an_answer_that_was_given_is_given_again_whatever_became_of_the_version(world, name):
    path, headers = f"/v1/models/{name}/current", {"Idempotency-Key": "once"}
    first = world.http.put(path, json={"version": 2}, headers=headers)
    world.http.put(path, json={"version": 1})
    damage(world, name, 2)
    again = world.http.put(path, json={"version": 2}, headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    assert predict(world, name).json()["version"] == 1


# Found later


def test_a_damaged_version_leaves_the_old_one_in_service_and_is_seen(world):
    name = world.model()
    world.version(name, "cat", "dog")
    assert predict(world, name).json()["version"] == 1
    broken = world.claim(world.increment(name, "emu", "fox")["id"])
    world.publish(broken, ["emu", "fox"], rewrite={"format": 99})
    assert eventually(lambda: fault(world, name))
    assert "format 99" in fault(world, name)
    assert "version 1 answers in its place" in fault(world, name)
    assert predict(world, name).json()["version"] == 1
    assert world.http.put(f"/v1/models/{name}/current", json={"version": 1}).status_code == 200
    assert fault(world, name) is None


def test_after_a_start_the_last_version_that_loads_answers_until_the_current_one_does(settings_for, tmp_path):
    settings = settings_for(tmp_path)
    with running(settings) as world:
        name = world.model()
        for labels in (("cat", "dog"), ("emu", "fox"), ("gnu", "hen")):
            world.version(name, *labels)
        repairs = {number: damage(world, name, number) for number in (3, 2)}
        repairs[2]()
    for answering in (2, 1):
        with running(settings) as world:
            assert eventually(ready(world))
            assert f"version {answering} answers in its place" in fault(world, name)
            assert "Version 3" in fault(world, name)
            assert described(world, name) == 2 * answering
            assert described(world, name, 3) == 6
            assert protocol_ready(world, name) == (200, True)
            assert protocol_ready(world, name, 3) == (404, False)
            answer = predict(world, name, record="durable").json()
            assert answer["version"] == answering
            assert len(answer["predictions"][0]) == 2 * answering
            assert world.http.get(f"/v1/predictions/{answer['id']}").json()["version"] == answering
            assert value(world.http, "accrete_models_not_current") == 1
            assert value(world.http, "accrete_current_version", model=name) == answering
            assert world.http.get(f"/v1/models/{name}/current").json()["version"] == 3
            if answering == 2:
                damage(world, name, 2)
            else:
                repairs[3]()
                assert eventually(lambda: predict(world, name).json()["version"] == 3)
                assert fault(world, name) is None
                assert described(world, name) == 6
                assert protocol_ready(world, name, 3) == (200, True)
                assert value(world.http, "accrete_models_not_current") == 0


def test_the_protocol_tells_what_will_answer_before_anything_was_asked(settings_for, tmp_path):
    """Not loaded at the start, for that is what two others are."""
    settings = settings_for(tmp_path, loaded_versions=2)
    with running(settings) as world:
        old, broken = world.model(), world.model()
        for name in (old, broken):
            world.version(name, "cat", "dog")
        world.version(old, "emu", "fox")
        damage(world, old, 2)
        damage(world, broken, 1)
        for _ in range(2):
            world.version(world.model(), "cat", "dog")
    with running(settings) as world:
        assert eventually(ready(world))
        assert fault(world, old) is None
        assert described(world, old) == 2
        assert protocol_ready(world, broken) == (404, False)
        assert "version 1 answers in its place" in fault(world, old)
        assert predict(world, old).json()["version"] == 1


def test_a_model_none_of_whose_versions_loads_says_why_and_others_answer(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        broken, whole = world.model(), world.model()
        for name in (broken, whole):
            world.version(name, "cat", "dog")
        damage(world, broken, 1)
        refused = predict(world, broken)
        assert "damaged" in problem(refused, 503, "version-unloadable")["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert "nothing answers" in fault(world, broken)
        assert fault(world, whole) is None
        assert predict(world, whole).status_code == 200
        assert value(world.http, "accrete_models_not_current") == 1
        assert world.http.get(f"/v2/models/{broken}").status_code == 200
        assert protocol_ready(world, broken) == protocol_ready(world, broken, 1) == (404, False)
        assert protocol_ready(world, whole) == protocol_ready(world, whole, 1) == (200, True)
        world.version(broken, "emu", "fox")  # taught from it, and published by a worker
        assert eventually(lambda: predict(world, broken).status_code == 200)
        assert predict(world, broken).json()["version"] == 2
        assert fault(world, broken) is None
        assert protocol_ready(world, broken) == protocol_ready(world, broken, 2) == (200, True)
        assert protocol_ready(world, broken, 1) == (404, False)


def test_a_version_that_is_asked_for_by_number_does_not_stand_in_for_another(world, name):
    damage(world, name, 2)
    problem(predict(world, name, version=2), 503, "version-unloadable")
    assert fault(world, name) is None
    assert predict(world, name).json()["version"] == 1
