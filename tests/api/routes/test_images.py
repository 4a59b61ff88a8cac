"""Stored images over HTTP, and what the current version says of them."""

import pytest

from tests.api.worlds import picture, problem


def stored(http, model, data, label="cat"):
    """Id of an image put into a new batch."""
    batch = http.post(f"/v1/models/{model}/batches").json()["id"]
    answer = http.post(f"/v1/batches/{batch}/images", params={"label": label}, content=data)
    assert answer.status_code == 201, answer.text
    return answer.json()["images"][0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_an_image_comes_back_as_it_was_uploaded(http, world, kind):
    data = picture(1, kind=kind)
    image = stored(http, world.model(), data)
    answer = http.get(f"/v1/images/{image['id']}")
    assert answer.content == data
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    assert answer.headers["etag"] == f'"{image["digest"]}"'


def test_a_browser_neither_guesses_nor_runs_what_was_uploaded(http, world):
    image = stored(http, world.model(), picture(1))
    answer = http.get(f"/v1/images/{image['id']}")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_the_current_version_says_what_it_sees(http, world):
    model = world.model()
    image = stored(http, model, picture(7))
    path = f"/v1/models/{model}/images/{image['id']}/prediction"
    assert "increments" in problem(http.get(path), 409, "no-version-yet")["detail"]
    world.version(model, "cat", "dog", "emu")
    answer = http.get(path, params={"top_k": 2}).json()
    assert (answer["image"], answer["label"], answer["model"], answer["version"]) == (image["id"], "cat", model, 1)
    same = http.post(f"/v1/models/{model}/predictions", params={"top_k": 2}, content=picture(7)).json()
    assert answer["predictions"] == same["predictions"][0]
    assert len(answer["predictions"]) == 2


def test_an_image_of_another_model_is_not_found(http, world):
    image = stored(http, world.model(), picture(1))
    problem(http.get(f"/v1/models/{world.model()}/images/{image['id']}/prediction"), 404, "image-not-found")
    problem(http.get(f"/v1/models/nobody/images/{image['id']}/prediction"), 404, "model-not-found")


@pytest.mark.parametrize("image_id", ["nothing", "%C3%A4", "..%2f..", "a" * 5000])
def test_an_image_that_is_not_there(http, world, image_id):
    assert http.get(f"/v1/images/{image_id}").status_code == 404
    answer = http.get(f"/v1/models/{world.model()}/images/{image_id}/prediction")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("top_k", ["0", "-1", "1001", "x", "1e3", "9" * 50])
def test_top_k_is_checked(http, world, top_k):
    path = f"/v1/models/{world.model()}/images/{'0' * 32}/prediction?top_k={top_k}"
    assert problem(http.get(path), 422, "request-invalid")["errors"][0]["field"] == "top_k"
