"""Looking through batches, images and classes over HTTP."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from api.client.client import Client
from api.commands.commandline import app
from storage.history import models
from storage.material import exemplars
from tests.api.worlds import picture, problem, running
from trainer.networks.pictures import thumbnail


@pytest.fixture(scope="module")
def collected(shared_world):
    """A model with three batches: one that was learned, an open one of two classes, and an empty one; their ids."""
    world, name = shared_world, shared_world.model()
    world.version(name, "cat", "dog")
    ids = [world.http.get(f"/v1/models/{name}/batches").json()["items"][0]["id"]]
    ids += [world.http.post(f"/v1/models/{name}/batches").json()["id"] for _ in range(2)]
    for label, files in (("emu", ["a_1.png", "B%2.png", "nested/A_1.PNG"]), ("größe", ["x.png"])):
        for seed, file in enumerate(files):
            answer = world.http.post(
                f"/v1/batches/{ids[1]}/images",
                params={"label": label, "split": "test" if seed == 2 else "train"},
                files=[("images", (file, picture(seed + len(label)), "image/png"))],
            )
            assert answer.status_code == 201, answer.text
    return name, ids


def pages(http, path, **query):
    """Every item of a list, two at a time."""
    found, cursor = [], None
    while True:
        answer = http.get(path, params=query | {"limit": 2} | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= 2
        found += page["items"]
        if (cursor := page["next_cursor"]) is None:
            return found


def test_batches_are_listed_latest_first_with_their_increments(http, collected):
    name, ids = collected
    found = pages(http, f"/v1/models/{name}/batches")
    assert [one["id"] for one in found] == ids[::-1]
    increment = http.get(f"/v1/models/{name}/versions/1").json()["increment_id"]
    assert [one["increment_id"] for one in found] == [None, None, increment]
    assert found == [http.get(f"/v1/batches/{one}").json() for one in ids[::-1]]
    problem(http.get("/v1/models/nobody/batches"), 404, "model-not-found")


def test_images_are_listed_each_once(http, collected):
    name, ids = collected
    found = pages(http, f"/v1/models/{name}/images")
    assert found == http.get(f"/v1/models/{name}/images").json()["items"]
    places = [(one["batch_id"], one["id"]) for one in found]
    assert all(one < other for one, other in pairwise(places))
    by_batch = {one: pages(http, f"/v1/batches/{one}/images") for one in ids}
    assert sorted(places) == sorted((one["batch_id"], one["id"]) for part in by_batch.values() for one in part)
    assert [len(by_batch[one]) for one in ids[1:]] == [4, 0]
    one = next(image for image in found if image["filename"] == "x.png")
    data = picture(len("größe"))
    assert (one["label"], one["split"], one["bytes"]) == ("größe", "train", len(data))
    assert http.get(f"/v1/images/{one['id']}").content == data


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"label": "emu"}, ["B%2.png", "A_1.PNG", "a_1.png"]),
        ({"label": "gro\u0308ße"}, ["x.png"]),  # as macOS writes it
        ({"label": "nobody"}, []),
        ({"split": "test"}, ["A_1.PNG"]),
        ({"text": "a_1"}, ["A_1.PNG", "a_1.png"]),
        ({"text": "%"}, ["B%2.png"]),
        ({"text": "_"}, ["A_1.PNG", "a_1.png"]),
        ({"text": "\\"}, []),
        ({"text": "png", "label": "emu", "split": "train"}, ["B%2.png", "a_1.png"]),
    ],
)
def test_filters_leave_what_was_asked_for(http, collected, query, names):
    name, ids = collected
    found = pages(http, f"/v1/batches/{ids[1]}/images", **query)
    assert sorted(one["filename"] for one in found) == sorted(names)
    whole = pages(http, f"/v1/models/{name}/images", **query)
    assert [one for one in whole if one["batch_id"] == ids[1]] == found


def test_exemplars_of_a_version_are_a_filter(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        batch = world.http.post(f"/v1/models/{name}/batches").json()["id"]
        for seed in range(4):
            world.http.post(f"/v1/batches/{batch}/images", params={"label": "cat"}, content=picture(seed))
        every = pages(world.http, f"/v1/models/{name}/images", label="cat")
        chosen = [one["id"] for one in every[2:][::-1]]
        with world.database.write() as connection:
            model = models.get(connection, name)
            exemplars.add(connection, model_id=model.id, version=1, chosen={"cat": chosen})
        for path in (f"/v1/models/{name}/images", f"/v1/batches/{batch}/images"):
            assert [one["id"] for one in pages(world.http, path, exemplar_of=1)] == [one["id"] for one in every[2:]]
            problem(world.http.get(path, params={"exemplar_of": 2}), 404, "version-not-found")
        classes = world.http.get(f"/v1/models/{name}/classes?examples=3").json()["classes"]
        assert classes[0]["examples"] == [*chosen, every[0]["id"]]


def test_classes_are_those_of_the_head_and_those_that_wait(http, collected):
    name, _ = collected
    answer = http.get(f"/v1/models/{name}/classes").json()
    assert answer["model"] == name
    found = {one["label"]: one for one in answer["classes"]}
    assert list(found) == ["cat", "dog", "emu", "größe"]
    assert [one["task"] for one in found.values()] == [0, 0, None, None]
    emus = [one["id"] for one in pages(http, f"/v1/models/{name}/images", label="emu")]
    assert sorted(found["emu"]["examples"]) == sorted(emus)
    assert (found["emu"]["train"], found["emu"]["test"]) == (2, 1)
    few = http.get(f"/v1/models/{name}/classes?examples=1").json()["classes"]
    assert [len(one["examples"]) for one in few[2:]] == [1, 1]
    none = http.get(f"/v1/models/{name}/classes?examples=0").json()["classes"]
    assert all(one["examples"] == [] for one in none)


@pytest.mark.parametrize("path", ["/v1/models/{}/images", "/v1/models/{}/batches"])
@pytest.mark.parametrize(
    "cursor", ["x", "W10", "WyJhIl0", "WzEsMl0", "WyJhIiwiYlx1MDAwMCJd", "bnVsbA", "eyJhIjoxLCJiIjoyfQ"]
)
def test_a_cursor_that_is_none_of_ours_is_refused(http, collected, path, cursor):
    problem(http.get(path.format(collected[0]), params={"cursor": cursor}), 422, "invalid")


# Thumbnails


def stored(world, data, name="a.png"):
    """The id of an image that was added to a batch."""
    batch = world.http.post(f"/v1/models/{world.model()}/batches").json()["id"]
    files = [("images", (name, data, "image/png"))]
    answer = world.http.post(f"/v1/batches/{batch}/images", params={"label": "cat"}, files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["images"][0]["id"]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(http, image_id, **query) -> Image.Image:
    """A thumbnail, decoded."""
    answer = http.get(f"/v1/images/{image_id}/thumbnail", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((400, 200), 128, (128, 64)),
        ((200, 400), 64, (32, 64)),
        ((3000, 2000), 512, (512, 341)),
        ((40, 20), 128, (40, 20)),  # never enlarged
        ((2000, 2), 16, (16, 1)),
    ],
)
def test_a_thumbnail_keeps_proportions(world, size, side, expected):
    for kind in ("PNG", "JPEG"):
        image = shown(world.http, stored(world, encoded(Image.new("RGB", size, "red"), kind)), side=side)
        assert image.size == expected
        assert np.abs(np.asarray(image).reshape(-1, 3).mean(axis=0) - (254, 0, 0)).max() < 3


def test_a_thumbnail_is_upright_and_on_white(http, world):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture_of = Image.new("RGB", (300, 100), "blue")
    picture_of.paste("lime", (0, 0, 150, 100))
    image = shown(http, stored(world, encoded(picture_of, "JPEG", exif=exif.tobytes())), side=90)
    assert image.size == (30, 90)
    pixels = np.asarray(image).astype(int)
    above, below = pixels[10].mean(axis=0), pixels[80].mean(axis=0)  # what was at the left is above
    assert above[1] > 200
    assert below[1] < 60
    clear = shown(http, stored(world, encoded(Image.new("RGBA", (50, 50), (0, 0, 0, 0)))))
    assert np.asarray(clear).min() > 250


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "LA", "CMYK"])
def test_every_mode_has_a_thumbnail(http, world, mode):
    image = Image.new("L", (64, 32), 128).convert("I").point(lambda value: value * 257) if mode == "I;16" else None
    source = image.convert("I;16") if image is not None else Image.new("L", (64, 32), 200).convert(mode)
    assert shown(http, stored(world, encoded(source, "JPEG" if mode == "CMYK" else "PNG")), side=32).size == (32, 16)


def test_a_thumbnail_is_made_once_and_not_sent_again(settings_for, tmp_path, monkeypatch):
    with running(settings_for(tmp_path)) as world:
        first = stored(world, picture(1, size=100))
        again = stored(world, picture(1, size=100))  # the same content
        made: list[int] = []

        def counted(data: bytes, *, side: int, max_pixels: int) -> Image.Image:
            made.append(side)
            return thumbnail(data, side=side, max_pixels=max_pixels)

        monkeypatch.setattr("api.views.thumbnails.thumbnail", counted)
        answers = [world.http.get(f"/v1/images/{one}/thumbnail?side=48") for one in (first, again, first)]
        assert len({answer.content for answer in answers}) == 1
        assert len(made) == 1
        tag = answers[0].headers["etag"]
        assert "private" in answers[0].headers["cache-control"]
        unchanged = world.http.get(f"/v1/images/{first}/thumbnail?side=48", headers={"If-None-Match": tag})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert world.http.get(f"/v1/images/{first}/thumbnail?side=49").headers["etag"] != tag
        assert world.http.delete(f"/v1/images/{first}").status_code == 204
        problem(world.http.get(f"/v1/images/{first}/thumbnail?side=48"), 404, "image-not-found")
        assert world.http.get(f"/v1/images/{again}/thumbnail?side=48").content == answers[0].content


@pytest.mark.parametrize("side", [0, 15, 513, "x"])
def test_a_side_out_of_range_is_refused(http, collected, side):
    image = http.get(f"/v1/models/{collected[0]}/images", params={"label": "emu"}).json()["items"][0]["id"]
    problem(http.get(f"/v1/images/{image}/thumbnail", params={"side": side}), 422, "request-invalid")


def test_the_client_and_the_command_line_list_them(world, collected):
    name, ids = collected
    url = str(world.http.base_url)
    with Client(url) as client:
        assert [one["id"] for one in client.batches(name)] == ids[::-1]
        emus = list(client.images(name, label="emu", text="png"))
        assert emus == list(client.batch_images(ids[1], label="emu", text="png"))
        assert len(emus) == 3
        assert client.thumbnail(emus[0]["id"], side=16).startswith(b"\xff\xd8")
        assert [one["label"] for one in client.classes(name, examples=0)["classes"]] == ["cat", "dog", "emu", "größe"]
    run = CliRunner()
    for command, words in (
        (["batches", "list", name], ids),
        (["images", "list", name, "--label", "emu"], [one["id"] for one in emus]),
        (["images", "list", name, "--batch", ids[1], "--text", "x"], ["x.png"]),
        (["classes", "list", name], ["größe"]),
    ):
        done = run.invoke(app, [*command, "--url", url])
        assert done.exit_code == 0, done.output
        assert all(word in done.output for word in words), done.output
