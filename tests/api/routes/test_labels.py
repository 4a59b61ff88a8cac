"""A class has one name, whichever way it comes in and however it is written."""

import base64
import unicodedata
from collections.abc import Callable

import httpx
import pytest

from tests.api.worlds import World, picture
from tests.storage.packing import tarred, zipped

LABEL = "Zürich"
SPELLINGS = {
    "as it is": LABEL,
    "as macOS writes it": unicodedata.normalize("NFD", LABEL),
    "blank behind": f"{LABEL} ",
    "blanks around": f"  {LABEL}\u00a0",
    "all of it": f"\u3000{unicodedata.normalize('NFD', LABEL)} ",
}
each_spelling = pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)

Send = Callable[[World, str, str], httpx.Response]


def in_zip(world: World, model: str, spelling: str) -> httpx.Response:
    return world.http.post(f"/v1/models/{model}/batches", content=zipped(_tree(spelling)))


def in_tar(world: World, model: str, spelling: str) -> httpx.Response:
    return world.http.post(f"/v1/models/{model}/batches", content=tarred(_tree(spelling)))


def on_sides(world: World, model: str, spelling: str) -> httpx.Response:
    sides = {f"{side}/{name}": data for side in ("train", "test") for name, data in _tree(spelling, side).items()}
    return world.http.post(f"/v1/models/{model}/batches", content=zipped(sides))


def in_form(world: World, model: str, spelling: str) -> httpx.Response:
    return world.http.post(f"/v1/models/{model}/batches", files={"data": ("a.zip", zipped(_tree(spelling)))})


def in_query(world: World, model: str, spelling: str) -> httpx.Response:
    return world.http.post(_images(world, model), params={"label": spelling}, content=picture(1))


def in_field(world: World, model: str, spelling: str) -> httpx.Response:
    return world.http.post(_images(world, model), data={"label": spelling}, files={"x": ("1.png", picture(1))})


def in_json(world: World, model: str, spelling: str) -> httpx.Response:
    body = {"label": spelling, "images": [base64.b64encode(picture(1)).decode()]}
    return world.http.post(_images(world, model), json=body)


def _tree(spelling: str, seed: str = "") -> dict[str, bytes]:
    return {f"{label}/{n}.png": picture(len(seed) + 10 * n) for label in (spelling, "bern") for n in range(2)}


def _images(world: World, model: str) -> str:
    return world.http.post(f"/v1/models/{model}/batches").headers["location"] + "/images"


@each_spelling
@pytest.mark.parametrize("send", [in_zip, in_tar, on_sides, in_form, in_query, in_field, in_json])
def test_every_way_in_leads_to_one_class(world: World, send: Send, spelling: str):
    answer = send(world, world.model(), spelling)
    assert answer.status_code == 201
    counted = answer.json().get("classes") or answer.json()["images"]
    assert LABEL in {one["label"] for one in counted}


@each_spelling
def test_every_spelling_erases_it(world: World, spelling: str):
    model = world.model()
    assert in_query(world, model, LABEL).status_code == 201
    assert world.http.delete(f"/v1/models/{model}/classes/{spelling}/images").json() == {"erased": 1}


@each_spelling
def test_every_spelling_is_known_already(world: World, spelling: str):
    model = world.model()
    world.version(model, LABEL, "bern")
    answer = world.http.post(f"/v1/models/{model}/increments", content=zipped(_tree(spelling)))
    assert (answer.status_code, answer.json()["classes"]) == (409, [LABEL, "bern"])


def test_case_makes_another_class(world: World):
    model = world.model()
    assert in_query(world, model, LABEL).status_code == 201
    assert world.http.delete(f"/v1/models/{model}/classes/{LABEL.lower()}/images").status_code == 404
