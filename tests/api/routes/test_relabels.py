"""Moving stored images to other classes."""

import pytest

from storage.domain import Image, Split, new_id
from storage.material import batches
from tests.api.worlds import picture, problem


def relabel(http, image_id, label):
    """Move an image; the answer."""
    return http.patch(f"/v1/images/{image_id}", json={"label": label})


def counts(http, batch_id):
    """Images of each class of a batch, on both sides."""
    return {one["label"]: (one["train"], one["test"]) for one in http.get(f"/v1/batches/{batch_id}").json()["classes"]}


@pytest.fixture
def taught(world):
    """A model of two versions of cats and dogs, then of emus, with ingested images; its name, and the first batch."""
    name = world.model()
    for labels in (("cat", "dog"), ("emu", "fox")):
        asked = world.increment(name, *labels)
        claim = world.claim(asked["id"])
        stored = [
            Image(new_id(), asked["batch_id"], label, f"{label}/{n}.png", world.blobs.put(picture(n)), 9, split)
            for label in labels
            for n, split in enumerate((Split.TRAIN, Split.TRAIN, Split.TEST))
        ]
        with world.database.write() as connection:
            batches.record_ingestion(connection, asked["batch_id"], ingested=stored, rejects=(), digest="0" * 64)
        world.publish(claim, labels)
    return name, world.http.get(f"/v1/models/{name}/batches").json()["items"][1]["id"]


def images_of(http, batch, label, split):
    """Ids of the images of a class, on one side."""
    query = {"label": label, "split": split}
    return [one["id"] for one in http.get(f"/v1/batches/{batch}/images", params=query).json()["items"]]


def test_an_image_is_moved_and_the_versions_that_learned_from_it_are_on_record(world, taught):
    http, (name, batch) = world.http, taught
    image = images_of(http, batch, "cat", "train")[0]
    moved = relabel(http, image, "emu")
    assert moved.status_code == 200, moved.text
    told = moved.json()
    assert (told["label"], told["former_label"], told["versions"]) == ("emu", "cat", [1, 2])
    assert told["note"].startswith("Versions 1, 2 learned from this image as 'cat' and stay as they are")
    assert counts(http, batch) == {"cat": (1, 1), "dog": (2, 1), "emu": (1, 0)}
    (record,) = http.get(f"/v1/models/{name}/relabels").json()["items"]
    expected = {"image_id": image, "before": "cat", "after": "emu", "split": "train", "versions": [1, 2]}
    assert {field: record[field] for field in expected} == expected
    for number in (1, 2):
        card = http.get(f"/v1/models/{name}/versions/{number}/card").text
        assert "Images that it learned from and that were moved to another class since: 1." in card


def test_of_an_image_of_a_later_increment_earlier_versions_have_not_learned(world, taught):
    http, (name, _) = world.http, taught
    batch = http.get(f"/v1/models/{name}/batches").json()["items"][0]["id"]
    image = images_of(http, batch, "emu", "test")[0]
    told = relabel(http, image, "cat").json()
    assert told["versions"] == [2]
    assert "were measured on this image as 'emu'" in told["note"]
    assert "measured on and that were moved" not in http.get(f"/v1/models/{name}/versions/1/card").text
    assert "measured on and that were moved" in http.get(f"/v1/models/{name}/versions/2/card").text


def test_back_and_forth_is_two_moves_and_the_same_class_is_none(world, taught):
    http, (name, batch) = world.http, taught
    image = images_of(http, batch, "cat", "train")[0]
    for label in ("dog", "dog", "cat"):
        assert relabel(http, image, label).status_code == 200
    moves = http.get(f"/v1/models/{name}/relabels").json()["items"]
    assert [(one["before"], one["after"]) for one in moves] == [("dog", "cat"), ("cat", "dog")]
    assert counts(http, batch)["cat"] == (2, 1)


def test_the_record_goes_with_the_image(world, taught):
    http, (name, batch) = world.http, taught
    image = images_of(http, batch, "cat", "train")[0]
    assert relabel(http, image, "dog").status_code == 200
    assert http.delete(f"/v1/images/{image}").status_code == 204
    assert http.get(f"/v1/models/{name}/relabels").json()["items"] == []
    problem(relabel(http, image, "cat"), 404, "image-not-found")


def test_a_learned_image_cannot_bring_a_class_that_the_model_does_not_have(world, taught):
    http, (_, batch) = world.http, taught
    image = images_of(http, batch, "cat", "train")[0]
    told = problem(relabel(http, image, "gnu"), 404, "class-not-found")
    assert "increment" in told["detail"]
    assert counts(http, batch)["cat"] == (2, 1)


def test_an_image_of_an_open_batch_may_get_any_class_and_nothing_is_on_record(world, taught):
    http, (name, _) = world.http, taught
    batch = http.post(f"/v1/models/{name}/batches").json()["id"]
    added = http.post(f"/v1/batches/{batch}/images", params={"label": "gnu"}, content=picture(1)).json()
    moved = relabel(http, added["images"][0]["id"], "hen").json()
    assert (moved["label"], moved["versions"], moved["note"]) == ("hen", [], "No version has learned from this image.")
    assert counts(http, batch) == {"hen": (1, 0)}
    assert http.get(f"/v1/models/{name}/relabels").json()["items"] == []


def test_an_image_that_an_increment_waits_to_learn_stays_as_it_is(world, taught):
    http, (name, _) = world.http, taught
    batch = http.post(f"/v1/models/{name}/batches").json()["id"]
    path, added = f"/v1/batches/{batch}/images", []
    for seed, label in enumerate(("gnu", "gnu", "hen", "hen")):
        added = http.post(path, params={"label": label}, content=picture(seed)).json()["images"]
    increment = http.post(f"/v1/models/{name}/increments", json={"batch_id": batch}).json()["id"]
    told = problem(relabel(http, added[0]["id"], "gnu"), 409, "batch-in-use")
    assert told["increments"] == [increment]
    assert http.post(f"/v1/increments/{increment}/cancel").status_code == 200
    assert relabel(http, added[0]["id"], "gnu").status_code == 200


@pytest.mark.parametrize("label", ["a/b", "a\nb", "x" * 201])
def test_a_text_that_is_no_class_name_is_refused(world, taught, label):
    image = images_of(world.http, taught[1], "cat", "train")[0]
    problem(relabel(world.http, image, label), 422, "invalid")
