"""Batches over HTTP: collected image by image, or sent as an archive."""

import io
import unicodedata

import pytest
from PIL import Image

from tests.api.conftest import MAX_REQUEST_BYTES
from tests.api.worlds import class_folders, class_zip, picture, problem
from tests.storage.packing import each_packer, zipped


@pytest.fixture
def batch(http, world):
    """Path of an empty, open batch."""
    answer = http.post(f"/v1/models/{world.model()}/batches")
    assert answer.status_code == 201
    return answer.headers["location"]


def files(*pictures):
    """Multipart files of some pictures."""
    return [("images", (f"{n}.png", data, "image/png")) for n, data in enumerate(pictures)]


# Piecemeal


def test_a_batch_is_collected_image_by_image_and_becomes_an_increment(http, world):
    model = world.model()
    started = http.post(f"/v1/models/{model}/batches").json()
    assert (started["status"], started["model"], started["images"], started["classes"]) == ("open", model, 0, [])
    path = f"/v1/batches/{started['id']}"

    one = http.post(f"{path}/images", params={"label": "cat"}, content=picture(1))
    assert one.status_code == 201
    assert [image["label"] for image in one.json()["images"]] == ["cat"]
    several = http.post(f"{path}/images", params={"label": "dog"}, files=files(picture(2), picture(3))).json()
    assert [image["filename"] for image in several["images"]] == ["0.png", "1.png"]
    http.post(f"{path}/images", params={"label": "cat", "split": "test"}, content=picture(4))

    filled = http.get(path).json()
    assert filled["classes"] == [
        {"label": "cat", "train": 1, "test": 1},
        {"label": "dog", "train": 2, "test": 0},
    ]
    assert (filled["status"], filled["images"], filled["rejects"]) == ("open", 4, [])

    asked = http.post(f"/v1/models/{model}/increments", json={"batch_id": started["id"], "promote": "manual"})
    assert asked.status_code == 202
    assert asked.json()["batch_id"] == started["id"]
    assert asked.json()["promote"] == "manual"
    assert http.get(path).json()["status"] == "closed"

    late = http.post(f"{path}/images", params={"label": "cat"}, content=picture(5))
    assert "closed" in problem(late, 409, "batch-closed")["detail"]
    again = http.post(f"/v1/models/{model}/increments", json={"batch_id": started["id"]})
    assert problem(again, 409, "batch-closed")["increment"] == asked.json()["id"]


def test_a_batch_that_is_refused_stays_open(http, world, batch):
    model, batch_id = http.get(batch).json()["model"], http.get(batch).json()["id"]
    path = f"/v1/models/{model}/increments"
    problem(http.post(path, json={"batch_id": batch_id}), 422, "nothing-to-learn")
    http.post(f"{batch}/images", params={"label": "cat"}, files=files(picture(1), picture(2)))
    alone = problem(http.post(path, json={"batch_id": batch_id}), 422, "nothing-to-learn")
    assert "second" in alone["detail"]
    http.post(f"{batch}/images", params={"label": "dog"}, content=picture(3))
    few = problem(http.post(path, json={"batch_id": batch_id}), 422, "batch-invalid")
    assert few["classes"] == ["dog"]
    assert http.get(batch).json()["status"] == "open"
    http.post(f"{batch}/images", params={"label": "dog"}, content=picture(4))
    assert http.post(path, json={"batch_id": batch_id}).status_code == 202


def test_a_batch_belongs_to_its_model(http, world, batch):
    answer = http.post(f"/v1/models/{world.model()}/increments", json={"batch_id": http.get(batch).json()["id"]})
    problem(answer, 404, "batch-not-found")


def test_one_bad_image_is_named_and_none_of_its_request_is_kept(http, world, batch):
    blobs = set(world.blobs.digests())
    answer = http.post(f"{batch}/images", params={"label": "cat"}, files=files(picture(1), b"%PDF-1.7", picture(2)))
    refused = problem(answer, 422, "image-unreadable")
    assert refused["file"] == "1.png"
    assert "1.png" in refused["detail"]
    assert http.get(batch).json()["images"] == 0
    assert set(world.blobs.digests()) == blobs


def test_a_closed_batch_leaves_no_image_in_the_store(http, world):
    model = world.model()
    closed = http.post(f"/v1/models/{model}/batches", content=class_zip("cat", "dog")).json()
    blobs = set(world.blobs.digests())
    answer = http.post(f"/v1/batches/{closed['id']}/images", params={"label": "cat"}, content=picture(987))
    problem(answer, 409, "batch-closed")
    assert set(world.blobs.digests()) == blobs


@pytest.mark.parametrize("label", [".", "..", " ", "a" * 201, "a/b", "a\\b", "a\x00b", "a\nb", "\u202etac", "/etc"])
def test_a_label_that_could_not_be_a_folder_is_refused(http, batch, label):
    answer = http.post(f"{batch}/images", params={"label": label}, content=picture(1))
    assert "label" in problem(answer, 422, "invalid")["detail"]


@pytest.mark.parametrize("query", ["label=", "label=" + "a" * 1001, "label=cat&split=both"])
def test_label_and_split_are_checked(http, batch, query):
    problem(http.post(f"{batch}/images?{query}", content=picture(1)), 422, "request-invalid")


@pytest.mark.parametrize("label", ["Kätzchen", "猫", "🐈", "a b", "cat's", '"', "%2f", "<b>", "null", "-1"])
def test_a_label_may_be_any_name(http, batch, label):
    answer = http.post(f"{batch}/images", params={"label": label}, content=picture(1))
    assert answer.json()["images"][0]["label"] == label
    assert http.get(batch).json()["classes"] == [{"label": label, "train": 1, "test": 0}]


def test_labels_that_look_the_same_are_the_same(http, batch):
    for form in ("NFC", "NFD"):
        label = unicodedata.normalize(form, "Kätzchen")
        assert http.post(f"{batch}/images", params={"label": label}, content=picture(1)).status_code == 201
    assert [count["train"] for count in http.get(batch).json()["classes"]] == [2]


@pytest.mark.parametrize(
    ("filename", "kept"),
    [("../../etc/cron.png", "cron.png"), ("a\x00b.png", "ab.png"), ("ä.png", "ä.png"), ("x" * 5000, "x" * 255)],
)
def test_a_filename_is_no_path(http, batch, filename, kept):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="'
        + filename.encode()
        + b'"\r\n\r\n'
        + picture(1)
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post(f"{batch}/images", params={"label": "cat"}, content=body, headers=headers)
    if answer.status_code == 201:
        assert answer.json()["images"][0]["filename"] == kept
    else:
        assert answer.status_code == 422  # longer headers than a form may have


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"abc", {"Content-Type": "multipart/form-data"}),
        (b"abc", {"Content-Type": "multipart/form-data; boundary="}),
        (b"abc", {"Content-Type": "multipart/form-data; boundary=" + "x" * 5000}),
        (b"{}", {"Content-Type": "application/json"}),
        (b'{"images": []}', {"Content-Type": "application/json"}),
        (b'{"images": ["\xc3\xa4"]}', {"Content-Type": "application/json"}),
        (b'{"images": ["a"]}', {"Content-Type": "application/json"}),
        (b'{"images": [1]}', {"Content-Type": "application/json"}),
        (b"not an image", {"Content-Type": "image/png"}),
    ],
)
def test_a_body_without_an_image_is_refused(http, batch, body, headers):
    answer = http.post(f"{batch}/images", params={"label": "cat"}, content=body, headers=headers)
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_image_larger_than_those_of_archives_may_be_is_refused(http, batch):
    buffer = io.BytesIO()
    Image.effect_noise((900, 900), 100).save(buffer, "BMP")
    assert MAX_REQUEST_BYTES // 2 < len(buffer.getvalue()) < MAX_REQUEST_BYTES
    answer = http.post(f"{batch}/images", params={"label": "cat"}, content=buffer.getvalue())
    assert "524,288" in problem(answer, 413, "too-large")["detail"]


@pytest.mark.parametrize("batch_id", ["nothing", "0" * 32, "%C3%A4", "a" * 5000])
def test_a_batch_that_is_not_there(http, batch_id):
    assert http.get(f"/v1/batches/{batch_id}").status_code == 404
    answer = http.post(f"/v1/batches/{batch_id}/images", params={"label": "cat"}, content=picture(1))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


# As an archive


@each_packer
def test_an_archive_becomes_a_closed_batch_in_one_request(http, world, pack):
    content = pack(class_folders("cat", "dog") | {"cat/readme.md": b"no image"})
    answer = http.post(f"/v1/models/{world.model()}/batches", content=content)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/v1/batches/{made['id']}"
    assert made["status"] == "closed"
    assert made["classes"] == [{"label": "cat", "train": 3, "test": 0}, {"label": "dog", "train": 3, "test": 0}]
    assert made["rejects"] == []
    assert made["ignored"] == [{"reason": "no image by its name", "count": 1, "files": ["cat/readme.md"]}]
    assert http.get(answer.headers["location"]).json() == made


def test_an_archive_may_bring_its_own_split(http, world):
    folders = class_folders("cat", "dog")
    content = zipped(
        {f"train/{name}": data for name, data in folders.items()} | {"test/cat/9.png": b"", "test/dog/9.png": b""}
    )
    made = http.post(f"/v1/models/{world.model()}/batches", files={"data": ("my.zip", content)}).json()
    assert made["classes"] == [{"label": "cat", "train": 3, "test": 1}, {"label": "dog", "train": 3, "test": 1}]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{}", "archive-unreadable"),
        (picture(1), "archive-unreadable"),
        (zipped({}), "archive-unreadable"),
        (class_zip("cat")[:-30], "archive-unreadable"),
        (zipped({"../cat/1.png": picture(1)}), "archive-unsafe"),
        (zipped({"cat\\..\\..\\1.png": picture(1)}), "archive-unsafe"),
        (zipped({"1.png": picture(1)}), "batch-invalid"),
        (zipped({"train/cat/1.png": b"", "test/dog/1.png": b""}), "batch-invalid"),
    ],
)
def test_an_archive_that_cannot_be_taken_leaves_nothing(http, world, content, kind):
    blobs = set(world.blobs.digests())
    problem(http.post(f"/v1/models/{world.model()}/batches", content=content), 422, kind)
    assert set(world.blobs.digests()) == blobs
    assert world.scratch == []


def test_an_empty_archive_in_a_form_is_no_empty_batch(http, world):
    answer = http.post(f"/v1/models/{world.model()}/batches", files={"data": ("my.zip", b"")})
    problem(answer, 422, "archive-unreadable")


def test_a_batch_for_nobody(http):
    problem(http.post("/v1/models/nobody/batches"), 404, "model-not-found")
    problem(http.post("/v1/models/nobody/batches", content=class_zip("cat", "dog")), 404, "model-not-found")
