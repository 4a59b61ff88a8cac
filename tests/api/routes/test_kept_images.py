"""Images of predictions that a model keeps: as they were sent, decoded ones only, and no longer than it is asked to."""

import base64
import hashlib
from typing import Any

import numpy as np
import pytest

from storage.material import references
from tests.api.worlds import SIZE, eventually, picture, problem, running


@pytest.fixture
def model(world):
    """A model that keeps the images of its predictions."""
    name = world.model(keep_predictions="all")
    world.version(name, "cat", "dog")
    return name


def predicted(http, model, content=None, **request):
    """The record of a durable prediction."""
    path = f"/v1/models/{model}/predictions?record=durable"
    answer = http.post(path, content=content, **request)
    assert answer.status_code == 200, answer.text
    return http.get(f"/v1/predictions/{answer.json()['id']}").json()


def image_of(http, record, position):
    return http.get(f"/v1/predictions/{record['id']}/images/{position}")


def waiting(world, data):
    with world.database.read() as connection:
        return hashlib.sha256(data).hexdigest() in references.waiting(connection, limit=10_000)


@pytest.mark.parametrize("how", ["body", "form", "json"])
def test_images_are_kept_as_they_were_sent(http, model, how):
    pictures = [picture(1, kind="JPEG")] if how == "body" else [picture(1, kind="JPEG"), picture(2)]
    encoded = [base64.b64encode(data).decode() for data in pictures]
    requests: dict[str, Any] = {
        "body": {"content": pictures[0]},
        "form": {"files": [("images", (f"{n}", data)) for n, data in enumerate(pictures)]},
        "json": {"json": {"images": encoded}},
    }
    record = predicted(http, model, **requests[how])
    assert record["kept"] == list(range(len(pictures)))
    for position, data in enumerate(pictures):
        answer = image_of(http, record, position)
        assert answer.content == data
        assert answer.headers["content-type"] == ("image/png" if position else "image/jpeg")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["etag"] == f'"{record["digests"][position]}"'


def test_what_is_written_behind_is_kept_too(http, model):
    def kept():
        record = http.post(f"/v1/models/{model}/predictions", content=picture(3)).json()
        return eventually(lambda: http.get(f"/v1/predictions/{record['id']}").json()["kept"] == [0], seconds=2)

    assert eventually(kept)
    assert {tuple(one["kept"]) for one in http.get(f"/v1/models/{model}/predictions").json()["items"]} >= {(0,)}


def test_the_inference_protocol_keeps_files_but_no_tensors(http, model):
    assert eventually(lambda: predicted(http, model, picture(4))["kept"])
    encoded = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(picture(5)).decode()]}
    pixels = np.zeros((1, 3, SIZE, SIZE)).tolist()
    tensor = {"name": "image", "shape": [1, 3, SIZE, SIZE], "datatype": "FP32", "data": pixels}
    ids = {}
    for kind, given in {"file": encoded, "tensor": tensor}.items():
        answer = http.post(f"/v2/models/{model}/infer", json={"inputs": [given]})
        assert answer.status_code == 200, answer.text
        ids[kind] = answer.json()["parameters"]["record"]
    assert eventually(lambda: http.get(f"/v1/predictions/{ids['file']}").json()["kept"] == [0])
    assert http.get(f"/v1/predictions/{ids['tensor']}").json()["kept"] == []


def test_a_model_keeps_nothing_unless_it_is_asked_to(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    record = predicted(http, name, picture(6))
    assert http.get(f"/v1/models/{name}").json()["keep_predictions"] == "none"
    assert record["kept"] == []
    problem(image_of(http, record, 0), 404, "prediction-not-found")


def test_what_is_no_image_is_not_kept(http, model, world):
    garbage = b"\x89PNG garbage"
    answer = http.post(f"/v1/models/{model}/predictions?record=durable", content=garbage)
    assert answer.status_code == 422
    assert not world.blobs.exists(hashlib.sha256(garbage).hexdigest())


def test_switching_off_lets_go_of_what_was_kept(http, model, world):
    data = picture(70_007)  # of this test alone: others of the same service store images too
    record = predicted(http, model, data)
    answer = http.patch(f"/v1/models/{model}", json={"keep_predictions": "none"})
    assert answer.json()["keep_predictions"] == "none"
    assert http.get(f"/v1/predictions/{record['id']}").json()["kept"] == []
    problem(image_of(http, record, 0), 404, "prediction-not-found")
    assert not world.blobs.exists(record["digests"][0])
    assert predicted(http, model, data)["kept"] == []


def test_a_deleted_model_leaves_no_image(http, model, world):
    record = predicted(http, model, picture(70_008))
    assert http.delete(f"/v1/models/{model}").status_code == 204
    assert not world.blobs.exists(record["digests"][0])


def test_an_erased_image_is_kept_no_longer(http, model):
    data, other = picture(9), picture(10)
    batch = http.post(f"/v1/models/{model}/batches").json()["id"]
    added = http.post(f"/v1/batches/{batch}/images", params={"label": "emu"}, content=data).json()["images"][0]
    pair = [("images", (f"{n}", content)) for n, content in enumerate([data, other])]
    record = predicted(http, model, files=pair)
    assert http.delete(f"/v1/images/{added['id']}").status_code == 204
    assert http.get(f"/v1/predictions/{record['id']}").json()["kept"] == [1]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_flagged_is_refused_until_there_is_a_score(http, world, method):
    path = "/v1/models" if method == "POST" else f"/v1/models/{world.model()}"
    answer = http.request(
        method, path, json={"keep_predictions": "flagged"} | ({"name": "x"} if method == "POST" else {})
    )
    assert "all or none" in problem(answer, 422, "request-invalid")["detail"]


def test_the_latest_are_kept_within_the_bound(settings_for, tmp_path):
    noise = [picture(seed, kind="BMP") for seed in range(4)]
    most = sum(map(len, noise[2:]))
    with running(settings_for(tmp_path, kept_images_bytes=most)) as world:
        name = world.model(keep_predictions="all")
        world.version(name, "cat", "dog")
        made = [predicted(world.http, name, data) for data in noise]
        kept = [world.http.get(f"/v1/predictions/{one['id']}").json()["kept"] for one in made]
        assert kept == [[], [], [0], [0]]
        assert waiting(world, noise[0])
        too_many = [("images", (f"{n}", data)) for n, data in enumerate(noise)]
        assert predicted(world.http, name, files=too_many)["kept"] == []
        assert world.http.get(f"/v1/predictions/{made[3]['id']}").json()["kept"] == [0]
