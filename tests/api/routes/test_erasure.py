"""Erasing over HTTP: images, batches and classes, and what is left of them on the disk."""

import hashlib
import re
from pathlib import Path

import pytest

from api.client.client import Client
from api.client.connection import Conflict, NotFound
from storage.material import references
from tests.api.worlds import World, picture, problem


def collected(world: World, model: str, label: str, *seeds: int) -> tuple[str, list[str]]:
    """A batch with pictures of one class, and their ids."""
    batch = world.http.post(f"/v1/models/{model}/batches").json()["id"]
    ids = []
    for seed in seeds:
        sent = world.http.post(f"/v1/batches/{batch}/images", params={"label": label}, content=picture(seed))
        ids.append(sent.json()["images"][0]["id"])
    return batch, ids


def anywhere(world: World, data: bytes) -> list[Path]:
    """Files of the service that hold these bytes."""
    files = [path for path in Path(world.settings.home).rglob("*") if path.is_file()]
    return [path for path in files if data in path.read_bytes()]


def test_an_erased_image_is_nowhere_any_more(world: World):
    batch, (first, second) = collected(world, world.model(), "a", 9001, 9002)
    assert anywhere(world, picture(9001))
    assert world.http.delete(f"/v1/images/{first}").status_code == 204
    assert not anywhere(world, picture(9001))
    problem(world.http.get(f"/v1/images/{first}"), 404, "image-not-found")
    problem(world.http.delete(f"/v1/images/{first}"), 404, "image-not-found")
    assert world.http.get(f"/v1/images/{second}").content == picture(9002)
    assert world.http.get(f"/v1/batches/{batch}").json()["classes"] == [{"label": "a", "train": 1, "test": 0}]


def test_the_same_picture_of_another_batch_stays(world: World):
    model = world.model()
    _, (mine,) = collected(world, model, "a", 9011)
    _, (theirs,) = collected(world, model, "b", 9011)
    assert world.http.delete(f"/v1/images/{mine}").status_code == 204
    assert world.http.get(f"/v1/images/{theirs}").content == picture(9011)


def test_a_picture_that_was_erased_can_be_sent_again(world: World):
    batch, (first,) = collected(world, world.model(), "a", 9021)
    assert world.http.delete(f"/v1/images/{first}").status_code == 204
    again = world.http.post(f"/v1/batches/{batch}/images", params={"label": "a"}, content=picture(9021))
    assert world.http.get(f"/v1/images/{again.json()['images'][0]['id']}").content == picture(9021)


def test_an_erased_batch_is_gone_with_its_images_and_archive(world: World):
    batch, ids = collected(world, world.model(), "a", 9031, 9032)
    assert world.http.delete(f"/v1/batches/{batch}").status_code == 204
    problem(world.http.get(f"/v1/batches/{batch}"), 404, "batch-not-found")
    for name in ids:
        problem(world.http.get(f"/v1/images/{name}"), 404, "image-not-found")
    assert not anywhere(world, picture(9031))
    problem(world.http.delete(f"/v1/batches/{batch}"), 404, "batch-not-found")


def test_a_batch_with_an_increment_in_the_queue_has_to_wait(world: World):
    increment = world.increment(world.model(), "of this", "test alone")  # equal archives are one blob
    refused = problem(world.http.delete(f"/v1/batches/{increment['batch_id']}"), 409, "batch-in-use")
    assert refused["increments"] == [increment["id"]]
    world.http.post(f"/v1/increments/{increment['id']}/cancel")
    blobs = set(world.blobs.digests())
    assert world.http.delete(f"/v1/batches/{increment['batch_id']}").status_code == 204
    assert len(blobs - set(world.blobs.digests())) == 1  # its archive
    assert world.http.get(f"/v1/batches/{increment['batch_id']}").json()["classes"] == []
    retried = world.http.post(f"/v1/increments/{increment['id']}/retry")
    assert retried.status_code == 422
    assert retried.json()["detail"]


def test_a_class_is_erased_from_all_batches_of_its_model(world: World):
    model, other = world.model(), world.model()
    first, ids = collected(world, model, "a/b".replace("/", " "), 9041, 9042)
    second, more = collected(world, model, "a b", 9043)
    _, (theirs,) = collected(world, other, "a b", 9044)
    answer = world.http.delete(f"/v1/models/{model}/classes/a b/images")
    assert (answer.status_code, answer.json()) == (200, {"erased": 3})
    for name in (*ids, *more):
        assert world.http.get(f"/v1/images/{name}").status_code == 404
    for batch in (first, second):
        assert world.http.get(f"/v1/batches/{batch}").json()["classes"] == []
    assert world.http.get(f"/v1/images/{theirs}").status_code == 200
    problem(world.http.delete(f"/v1/models/{model}/classes/a b/images"), 404, "image-not-found")
    problem(world.http.delete("/v1/models/nothing/classes/a/images"), 404, "model-not-found")


def test_a_class_in_an_archive_that_waits_to_be_read_cannot_be_erased_yet(world: World):
    model = world.model()
    increment = world.increment(model, "a", "b")
    refused = problem(world.http.delete(f"/v1/models/{model}/classes/a/images"), 409, "batch-in-use")
    assert refused["batch"] == increment["batch_id"]


def test_a_deleted_model_leaves_none_of_its_files(world: World):
    before = set(world.blobs.digests())
    model = world.model()
    collected(world, model, "a", 9051)
    world.version(model, "a", "b")
    assert len(set(world.blobs.digests()) - before) >= 3
    assert world.http.delete(f"/v1/models/{model}").status_code == 204
    assert set(world.blobs.digests()) - before == set()


def test_the_client_erases(world: World):
    model = world.model()
    batch, (first, _, _) = collected(world, model, "a", 9061, 9062, 9063)
    with Client(str(world.http.base_url)) as client:
        client.erase_image(first)
        with pytest.raises(NotFound):
            client.erase_image(first)
        assert client.erase_class(model, "a") == 2
        client.erase_batch(batch)
        increment = world.increment(model, "c", "d")
        with pytest.raises(Conflict):
            client.erase_batch(increment["batch_id"])


def awaiting_deletion(world: World) -> int:
    """The gauge of blobs that were let go of and are still there."""
    found = re.search(r"^accrete_blobs_awaiting_deletion (\S+)$", world.http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


@pytest.mark.parametrize(("what", "seed"), [("image", 9200), ("batch", 9210), ("class", 9220), ("model", 9230)])
def test_erasing_succeeds_though_a_blob_cannot_be_deleted_and_the_metrics_count_it(world: World, what: str, seed: int):
    name = world.model()
    batch, (first, *_) = collected(world, name, "a", seed, seed + 1, seed + 2)
    stuck = hashlib.sha256(picture(seed)).hexdigest()
    (path,) = Path(world.settings.home).rglob(stuck)
    path.unlink()
    (path / "inside").mkdir(parents=True)  # nobody, not even root, unlinks a folder
    before = awaiting_deletion(world)
    route = {
        "image": f"/v1/images/{first}",
        "batch": f"/v1/batches/{batch}",
        "class": f"/v1/models/{name}/classes/a/images",
        "model": f"/v1/models/{name}",
    }[what]
    assert world.http.delete(route).is_success
    assert awaiting_deletion(world) == before + 1
    problem(world.http.get(f"/v1/images/{first}"), 404, "image-not-found")
    assert [bool(anywhere(world, picture(other))) for other in (seed + 1, seed + 2)] == [what == "image"] * 2
    _, (another,) = collected(world, world.model(), "b", seed + 1000)
    assert world.http.delete(f"/v1/images/{another}").status_code == 204
    assert not anywhere(world, picture(seed + 1000))

    (path / "inside").rmdir()
    path.rmdir()
    with world.database.write() as connection:  # its time has come
        references.take(connection, [stuck])
        references.release(connection, [stuck])
    _, (another,) = collected(world, world.model(), "b", seed + 2000)
    assert world.http.delete(f"/v1/images/{another}").status_code == 204
    assert awaiting_deletion(world) == before
