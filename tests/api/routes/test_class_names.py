"""Classes are displayed by their names and held by their labels."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from storage.domain import new_id
from storage.material import batches
from tests.api.scopes import SCOPES
from tests.api.worlds import class_zip, eventually, picture, problem, running
from trainer.process.evaluations import evaluations_of

OLD, NEW = "oldzebra", "newquagga"


def renamed(http, model, label, to):
    """Rename a class; the answer."""
    return http.patch(f"/v1/models/{model}/classes/{label}", json={"label": to})


def sent(http, model, *labels, **query):
    """Ask for an increment of some classes; the answer."""
    return http.post(f"/v1/models/{model}/increments", content=class_zip(*labels), params=query)


def labels(http, model):
    """What the classes of a model are called."""
    return [one["label"] for one in http.get(f"/v1/models/{model}/classes").json()["classes"]]


@pytest.fixture
def taught(world):
    """A model of two versions, with evaluations, that knows the class to be renamed; its name."""
    name = world.model()
    for classes, sizes in (((OLD, "dog"), [2]), (("emu", "fox"), [2, 2])):
        ids = [new_id() for _ in range(2 * sum(sizes))]
        targets = np.arange(len(ids)) % sum(sizes)
        results = evaluations_of(np.eye(sum(sizes))[targets], targets=targets, ids=ids, task_sizes=sizes)
        world.publish(world.claim(world.increment(name, *classes)["id"]), classes, results=results)
    return name


def test_a_class_is_called_by_its_new_name_wherever_it_is_shown(world, taught):
    http = world.http
    batch = http.post(f"/v1/models/{taught}/batches").json()["id"]
    added = http.post(f"/v1/batches/{batch}/images", params={"label": OLD}, content=picture(5)).json()["images"][0]
    queued = world.increment(taught, "gnu", "hen")["id"]
    places = {
        "name": taught,
        "number": "2",
        "batch_id": batch,
        "image_id": added["id"],
        "increment_id": queued,
        "file": "network.onnx",
        "version": "1",
    }
    # Answers on record stay as they were; files of a version are held as they were written.
    unchanged = {
        "GET /v1/audit",
        "GET /v1/models/{name}/predictions",
        "GET /v1/predictions/{prediction_id}",
        "GET /v1/predictions/{prediction_id}/images/{position}",
        "GET /v1/models/{name}/versions/{number}/files/{file}",
    }
    shown = [
        re.sub(r"{(\w+)}", lambda match: places[match[1]], route.removeprefix("GET "))
        for route in SCOPES
        if route.startswith("GET ") and route not in unchanged and "/events" not in route
    ]
    before = {path: http.get(path) for path in shown}
    naming = {path for path, answer in before.items() if OLD in answer.text}
    assert naming >= {f"/v1/models/{taught}", f"/v1/models/{taught}/versions/2/card", f"/v2/models/{taught}"}

    answer = renamed(http, taught, OLD, NEW)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["label"], answer.json()["id"], answer.json()["task"]) == (NEW, OLD, 0)
    for path in shown:
        after = http.get(path)
        assert after.status_code == before[path].status_code, path
        assert OLD not in after.text.replace(f'"id":"{OLD}"', ""), path
        assert (NEW in after.text) == (path in naming), path
    predicted = http.post(f"/v1/models/{taught}/predictions", content=picture(1), params={"top_k": 10}).json()
    said = [one["label"] for one in predicted["predictions"][0]]
    assert NEW in said
    assert OLD not in said


def test_what_is_asked_for_by_the_new_name_is_found_and_not_by_the_old_one(world, taught):
    http = world.http
    assert renamed(http, taught, OLD, NEW).status_code == 200
    batch = http.post(f"/v1/models/{taught}/batches").json()["id"]
    added = http.post(f"/v1/batches/{batch}/images", params={"label": NEW}, content=picture(6))
    assert added.status_code == 201
    found = http.get(f"/v1/models/{taught}/images", params={"label": NEW}).json()["items"]
    assert [one["label"] for one in found] == [NEW]
    assert http.get(f"/v1/models/{taught}/images", params={"label": OLD}).json()["items"] == []
    rows = http.get(f"/v1/models/{taught}/versions/1/evaluations", params={"label": NEW}).json()
    assert {one["label"] for one in rows["items"]} == {NEW}
    problem(http.get(f"/v1/models/{taught}/versions/1/evaluations", params={"label": OLD}), 422, "invalid")
    problem(http.delete(f"/v1/models/{taught}/classes/{OLD}/images"), 404, "image-not-found")
    assert http.get(f"/v1/models/{taught}/images", params={"label": NEW}).json()["items"] != []
    assert http.delete(f"/v1/batches/{batch}").status_code == 204


def test_images_that_are_sent_under_the_new_name_are_of_the_known_class(world, taught):
    http = world.http
    assert renamed(http, taught, OLD, NEW).status_code == 200
    known = problem(sent(http, taught, NEW, "gnu"), 409, "classes-already-known")
    assert known["classes"] == [NEW]
    asked = sent(http, taught, NEW, "gnu", known_classes="rehearse")
    assert asked.status_code == 202, asked.text
    with world.database.read() as connection:
        batch = batches.get(connection, asked.json()["batch_id"])
    assert [count.label for count in batch.classes] == ["gnu", OLD]
    assert batch.labels == {NEW: OLD}
    assert [one["label"] for one in http.get(f"/v1/batches/{batch.id}").json()["classes"]] == ["gnu", NEW]


def test_images_that_are_sent_under_the_former_name_are_refused(world, taught):
    http = world.http
    assert renamed(http, taught, OLD, NEW).status_code == 200
    told = problem(sent(http, taught, OLD, "gnu"), 409, "class-name-taken")
    assert NEW in told["detail"]
    problem(http.post(f"/v1/models/{taught}/batches", content=class_zip(OLD, "gnu")), 409, "class-name-taken")
    batch = http.post(f"/v1/models/{taught}/batches").json()["id"]
    adding = http.post(f"/v1/batches/{batch}/images", params={"label": OLD}, content=picture(7))
    problem(adding, 409, "class-name-taken")


def test_names_are_exchanged_by_way_of_a_third(world, taught):
    http = world.http
    problem(renamed(http, taught, OLD, "dog"), 409, "class-name-taken")
    for label, to in ((OLD, "third"), ("dog", OLD), ("third", "dog")):
        assert renamed(http, taught, label, to).status_code == 200
    assert labels(http, taught)[:2] == ["dog", OLD]
    known = problem(sent(http, taught, "dog", OLD), 409, "classes-already-known")
    assert known["classes"] == ["dog", OLD]


def test_a_class_gets_its_name_back(world, taught):
    http = world.http
    for label, to in ((OLD, NEW), (NEW, OLD)):
        assert renamed(http, taught, label, to).status_code == 200
    assert OLD in labels(http, taught)
    known = problem(sent(http, taught, OLD, "gnu"), 409, "classes-already-known")
    assert known["classes"] == [OLD]


def test_the_same_name_again_changes_nothing(world, taught):
    assert renamed(world.http, taught, OLD, OLD).status_code == 200
    assert labels(world.http, taught)[0] == OLD


@pytest.mark.parametrize("name", ["a/b", "..", "a\nb", "x" * 201])
def test_a_text_that_is_no_class_name_is_refused(world, taught, name):
    problem(renamed(world.http, taught, OLD, name), 422, "invalid")


def test_a_class_that_is_not_there_has_no_name_to_change(world, taught):
    http = world.http
    problem(renamed(http, "nobody", OLD, NEW), 404, "model-not-found")
    problem(renamed(http, taught, "nobody", NEW), 404, "class-not-found")
    assert renamed(http, taught, OLD, NEW).status_code == 200
    told = problem(renamed(http, taught, OLD, "third"), 404, "class-not-found")
    assert NEW in told["detail"]


def test_of_two_who_give_two_classes_one_name_one_is_refused(world, taught):
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda label: renamed(world.http, taught, label, NEW), (OLD, "dog")))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


def test_every_process_answers_by_the_new_name_soon(settings_for, tmp_path):
    """A second process, which was not asked to rename: its versions in memory follow what the database says."""
    settings = settings_for(tmp_path)
    with running(settings) as world, running(settings) as other:
        name = world.model()
        world.version(name, OLD, "dog")
        world.version(name, "emu", "fox")
        asked = [{"top_k": 10}, {"top_k": 10, "version": 1}]

        def said():
            answers = [
                other.http.post(f"/v1/models/{name}/predictions", content=picture(1), params=one) for one in asked
            ]
            return [{one["label"] for one in answer.json()["predictions"][0]} for answer in answers]

        assert all(OLD in one for one in said())
        assert renamed(world.http, name, OLD, NEW).status_code == 200
        assert eventually(lambda: all(NEW in one and OLD not in one for one in said()), seconds=30)
