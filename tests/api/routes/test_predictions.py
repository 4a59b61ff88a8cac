"""Predictions over HTTP, their record, and how a promotion reaches them."""

import base64
import hashlib
import io
import time
from threading import Event, Thread

import pytest
from PIL import Image

from api.routes.predictions import INLINE_BYTES
from storage.history import models, versions
from tests.api.worlds import SIZE, eventually, picture, problem, running

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model(shared_world):
    """A model of five classes in two versions, that no test changes."""
    name = shared_world.model()
    shared_world.version(name, "cat", "dog")
    shared_world.version(name, "emu", "fox", "gnu")
    return name


def predict(http, model, content=None, *, headers=None, files=None, **query):
    """Ask for predictions."""
    path = f"/v1/models/{model}/predictions"
    return http.post(path, params=query, content=content, headers=headers, files=files)


def files(*pictures):
    """Multipart files of some pictures."""
    return [("images", (f"{n}.png", data, "image/png")) for n, data in enumerate(pictures)]


def in_json(*pictures):
    """A JSON body of some pictures."""
    return {"images": [base64.b64encode(data).decode() for data in pictures]}


# What is asked and answered


def test_one_picture_as_the_body(http, model):
    answer = predict(http, model, picture(1), headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"], len(body["predictions"])) == (model, 2, 1)
    ranked = body["predictions"][0]
    assert {one["label"] for one in ranked} == {"cat", "dog", "emu", "fox", "gnu"}
    assert sum(one["probability"] for one in ranked) == pytest.approx(1)
    assert [one["probability"] for one in ranked] == sorted((one["probability"] for one in ranked), reverse=True)


def test_body_form_and_json_say_the_same(http, model, world):
    pictures = [picture(seed) for seed in range(3)]
    one_by_one = [predict(http, model, data).json()["predictions"][0] for data in pictures]
    assert predict(http, model, files=files(*pictures)).json()["predictions"] == approximately(one_by_one)
    by_json = http.post(f"/v1/models/{model}/predictions", json=in_json(*pictures)).json()
    assert by_json["predictions"] == approximately(one_by_one)
    assert one_by_one[0] != one_by_one[1]


def approximately(predictions):
    """The same labels in the same order, probabilities but for the last bits: a batch is added up in another order."""
    return [
        [{"label": one["label"], "probability": pytest.approx(one["probability"], abs=1e-5)} for one in ranked]
        for ranked in predictions
    ]


@pytest.mark.parametrize("kind", ["image/jpeg", "Image/Whatever; q=1", "application/octet-stream", "", None])
def test_the_bytes_count_not_what_they_are_called(http, model, kind):
    answer = predict(http, model, picture(1), headers={} if kind is None else {"Content-Type": kind})
    assert answer.json()["predictions"] == predict(http, model, picture(1)).json()["predictions"]


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (5, 5), (1000, 5)])
def test_top_k_bounds_the_answer(http, model, top_k, count):
    assert [len(one) for one in predict(http, model, picture(1), top_k=top_k).json()["predictions"]] == [count]


def test_five_are_ranked_by_default(http, world):
    name = world.model()
    world.version(name, *(f"class {n}" for n in range(8)))
    assert len(predict(http, name, picture(1)).json()["predictions"][0]) == 5


def test_a_version_is_chosen_by_number(http, model):
    old = predict(http, model, picture(1), version=1).json()
    assert old["version"] == 1
    assert {one["label"] for one in old["predictions"][0]} == {"cat", "dog"}
    assert predict(http, model, picture(1), version=2).json()["version"] == 2


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (64, 64)])
def test_pictures_of_any_size_are_taken(http, model, size):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    assert predict(http, model, buffer.getvalue()).status_code == 200


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_pictures_of_any_mode_are_taken(http, model, mode):
    buffer = io.BytesIO()
    image = Image.new("RGB", (SIZE, SIZE), "red")
    image = Image.new(mode, (SIZE, SIZE)) if mode == "I;16" else image.convert(mode)
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert predict(http, model, buffer.getvalue()).status_code == 200


def test_many_at_once_each_get_their_own_answer(http, model):
    expected = {seed: predict(http, model, picture(seed)).json()["predictions"] for seed in range(8)}
    answers = {}

    def ask(seed):
        answers[seed] = predict(http, model, picture(seed)).json()["predictions"]

    threads = [Thread(target=ask, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {seed: approximately(predictions) for seed, predictions in expected.items()}


# What is refused


def test_without_a_version_the_way_out_is_named(http, world):
    name = world.model()
    refused = problem(predict(http, name, picture(1)), 409, "no-version-yet")
    assert f"/v1/models/{name}/increments" in refused["detail"]
    problem(predict(http, name, picture(1), version=1), 404, "version-not-found")
    problem(predict(http, "nobody", picture(1)), 404, "model-not-found")


@pytest.mark.parametrize("version", ["3", "99999999999", "9" * 30])
def test_a_version_that_is_not_there(http, model, version):
    problem(predict(http, model, picture(1), version=version), 404, "version-not-found")


@pytest.mark.parametrize(
    "query",
    [
        {"top_k": "0"},
        {"top_k": "-5"},
        {"top_k": "1001"},
        {"top_k": "9" * 40},
        {"top_k": "9" * 5000},
        {"top_k": "many"},
        {"top_k": "1.5"},
        {"top_k": ""},
        {"version": "0"},
        {"version": "-1"},
        {"version": "latest"},
        {"record": "maybe"},
    ],
)
def test_a_query_out_of_range_is_refused(http, model, query):
    refused = problem(predict(http, model, picture(1), **query), 422, "request-invalid")
    assert refused["errors"][0]["field"] in query


def broken():
    """Bytes that are no picture this service reads."""
    whole, animated, tiff = picture(1, size=64), io.BytesIO(), io.BytesIO()
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    frames[0].save(tiff, "TIFF")
    return {
        "truncated": whole[: len(whole) // 2],
        "PDF": b"%PDF-1.7\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        "TIFF": tiff.getvalue(),
        "animated": animated.getvalue(),
        "zeros": bytes(1000),
        "pickle": b"\x80\x04N.",
    }


@pytest.mark.parametrize("kind", broken())
def test_a_bad_picture_is_named_by_its_position(http, model, kind):
    bad = broken()[kind]
    assert problem(predict(http, model, bad), 422, "image-unreadable")["image"] == 0
    refused = problem(predict(http, model, files=files(picture(1), bad, picture(2))), 422, "image-unreadable")
    assert refused["image"] == 1
    by_json = http.post(f"/v1/models/{model}/predictions", json=in_json(picture(1), picture(2), bad))
    assert problem(by_json, 422, "image-unreadable")["image"] == 2


def test_a_pixel_bomb_is_refused_before_it_is_decoded(http, model):
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    header = buffer.getvalue()[:100]  # there are no pixels to decode
    assert "pixels" in problem(predict(http, model, header), 422, "image-unreadable")["detail"]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"", JSON),
        (b"{}", JSON),
        (b"[]", JSON),
        (b"null", JSON),
        (b'{"images": []}', JSON),
        (b'{"images": "aGk="}', JSON),
        (b'{"images": [null]}', JSON),
        (b'{"images": ["\xff"]}', JSON),
        (b'{"images": ["a b"]}', JSON),
        (b'{"images": ["aGk="], "top_k": 3}', JSON),
        (b"[" * 100_000, JSON),
        (b"", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"junk", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"junk", {"Content-Type": "multipart/form-data"}),
        (b"junk", {"Content-Type": "multipart/form-data; boundary=" + "x" * 5000}),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
            {"Content-Type": "multipart/form-data; boundary=x"},
        ),
    ],
)
def test_a_body_without_a_picture_is_refused(http, model, content, headers):
    answer = predict(http, model, content, headers=headers)
    assert answer.status_code in {400, 413, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_too_many_pictures_at_once_are_refused_with_the_limit(http, model):
    assert predict(http, model, files=files(*[picture(1)] * 8)).status_code == 200
    assert "1 to 8" in problem(predict(http, model, files=files(*[picture(1)] * 9)), 422, "invalid")["detail"]


# The record


def test_a_durable_record_is_there_at_once_and_says_what_was_answered(http, world):
    model = world.model()  # of its own: what other tests left to be written behind would come after the record
    world.version(model, "cat", "dog")
    answer = predict(http, model, files=files(picture(1), picture(2)), record="durable").json()
    kept = http.get(f"/v1/predictions/{answer['id']}").json()
    assert kept.pop("created_at").endswith("Z")
    assert kept.pop("digests") == [hashlib.sha256(picture(seed)).hexdigest() for seed in (1, 2)]
    assert kept.pop("reference") is None
    assert kept.pop("kept") == []
    assert kept == answer
    assert http.get(f"/v1/models/{model}/predictions").json()["items"][0]["id"] == answer["id"]


def test_a_record_written_behind_can_be_read_back_at_once_too(http, model):
    for seed in range(5):
        answer = predict(http, model, picture(seed)).json()
        assert http.get(f"/v1/predictions/{answer['id']}").json()["predictions"] == answer["predictions"]


def test_records_are_listed_latest_first_page_by_page(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    made = [predict(http, name, picture(seed), record="durable").json()["id"] for seed in range(5)]
    path = f"/v1/models/{name}/predictions"
    seen, cursor = [], None
    while True:
        page = http.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [item["id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize("record", ["durable", "behind"])
def test_a_record_is_found_by_the_callers_reference(http, model, record):
    reference = f"belt 3 – größe/{record}?"
    answers = [predict(http, model, picture(seed), reference=reference, record=record).json() for seed in (1, 2)]
    predict(http, model, picture(3), reference=f"{reference} ")
    large = {"images": [base64.b64encode(picture(seed, size=200)).decode() for seed in (4, 5)], "reference": reference}
    answers.append(http.post(f"/v1/models/{model}/predictions", json=large).json())
    assert sum(len(picture(seed, size=200)) for seed in (4, 5)) > INLINE_BYTES

    def found():
        return http.get(f"/v1/models/{model}/predictions", params={"reference": reference}).json()["items"]

    assert eventually(lambda: len(found()) == 3, seconds=30)
    assert [one["id"] for one in found()] == [answer["id"] for answer in answers[::-1]]
    assert {one["reference"] for one in found()} == {reference}
    assert found()[0]["digests"] == [hashlib.sha256(picture(seed, size=200)).hexdigest() for seed in (4, 5)]


@pytest.mark.parametrize("reference", ["", "a\0b", "line\nbreak", "x" * 201])
def test_a_reference_that_no_record_takes_is_refused(http, model, reference):
    refused = problem(predict(http, model, picture(1), reference=reference), 422, "request-invalid")
    assert "reference" in str(refused["errors"])
    as_json = http.post(f"/v1/models/{model}/predictions", json=in_json(picture(1)) | {"reference": reference})
    assert "reference" in problem(as_json, 422, "invalid")["detail"]


def test_records_written_behind_outlive_the_process(settings_for, tmp_path):
    settings = settings_for(tmp_path)
    with running(settings) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        made = [predict(world.http, name, picture(seed)).json()["id"] for seed in range(20)]
    with running(settings) as world:
        assert all(world.http.get(f"/v1/predictions/{number}").status_code == 200 for number in made)


def test_a_deleted_model_takes_no_other_models_records_along(http, world):
    kept, deleted = world.model(), world.model()
    for name in (kept, deleted):
        world.version(name, "cat", "dog")
        predict(http, name, picture(1))
    ids = [predict(http, kept, picture(seed)).json()["id"] for seed in range(3)]
    predict(http, deleted, picture(1))
    http.delete(f"/v1/models/{deleted}")
    time.sleep(0.3)
    assert all(http.get(f"/v1/predictions/{number}").status_code == 200 for number in ids)


@pytest.mark.parametrize("prediction_id", ["nothing", "0" * 32, "%C3%A4", "a" * 5000])
def test_a_record_that_is_not_there(http, prediction_id):
    answer = http.get(f"/v1/predictions/{prediction_id}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


# Promotion


def test_a_promotion_by_another_process_is_noticed_within_a_second(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    assert predict(http, name, picture(1)).json()["version"] == 1
    world.version(name, "emu", "fox")  # published as a worker does it, this service is not told
    # within a second on a machine that does nothing else; loading takes its time where there is none to spare
    assert eventually(lambda: predict(http, name, picture(1)).json()["version"] == 2)


def test_a_promotion_by_this_process_is_there_with_its_answer(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu", "fox")
    for version in (1, 2, 1, 2):
        http.put(f"/v1/models/{name}/current", json={"version": version})
        assert predict(http, name, picture(1)).json()["version"] == version


def test_promotions_under_load_cost_no_answer_and_mix_no_versions(http, world, tmp_path):
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu", "fox")
    expected = {version: predict(http, name, picture(1), version=version).json()["predictions"] for version in (1, 2)}
    predict(http, name, picture(1))  # the version in service is loaded, and each promotion waits for the next one
    done, answers = Event(), []

    def ask():
        while not done.is_set():
            answers.append(predict(http, name, picture(1)))

    threads = [Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(20):
        assert http.put(f"/v1/models/{name}/current", json={"version": 1 + n % 2}).status_code == 200
    done.set()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    bodies = [answer.json() for answer in answers]
    assert {body["version"] for body in bodies} == {1, 2}
    assert all(body["predictions"] == approximately(expected[body["version"]]) for body in bodies)


@pytest.mark.parametrize(
    "rewrite",
    [
        {"tasks": [["cat", "dog"], ["emu", "fox", "gnu"]]},  # not what the network gives
        {"format": 99},
        {"channels": 1},
        {"files": {"network.onnx": {"sha256": "0" * 64, "bytes": 1}}},
        {"tasks": None},
    ],
    ids=lambda rewrite: next(iter(rewrite)),
)
def test_a_version_that_cannot_be_loaded_does_not_end_the_look_for_promotions(http, world, rewrite):
    name = world.model()
    world.version(name, "cat", "dog")
    assert predict(http, name, picture(1)).json()["version"] == 1
    world.publish(world.claim(world.increment(name, "emu", "fox")["id"]), ["emu", "fox"], rewrite=rewrite)
    assert eventually(lambda: f"model {name}" in http.get("/readyz").json()["checks"])
    assert predict(http, name, picture(1)).json()["version"] == 1
    world.version(name, "hen", "ibis")
    assert eventually(lambda: predict(http, name, picture(1)).json()["version"] == 3)


def test_a_deleted_model_does_not_end_the_look_for_promotions(http, world):
    for _ in range(3):
        name = world.model()
        world.version(name, "cat", "dog")
        predict(http, name, picture(1))
        http.delete(f"/v1/models/{name}")
    name = world.model()
    world.version(name, "cat", "dog")
    predict(http, name, picture(1))
    world.version(name, "emu", "fox")
    assert eventually(lambda: predict(http, name, picture(1)).json()["version"] == 2)


def test_what_was_deleted_by_another_process_is_forgotten_within_a_second(http, world):
    kept, deleted = world.model(), world.model()
    for name in (kept, deleted):
        world.version(name, "cat", "dog")
        world.version(name, "emu", "fox")
        assert predict(http, name, picture(1), version=1).json()["version"] == 1
    with world.database.write() as connection:
        versions.remove(connection, models.lock(connection, kept), 1)
        models.delete_model(connection, deleted)
    assert eventually(lambda: predict(http, kept, picture(1), version=1).status_code == 404)
    assert eventually(lambda: predict(http, deleted, picture(1), version=1).status_code == 404)
    assert predict(http, kept, picture(1)).json()["version"] == 2
    assert predict(http, deleted, picture(1)).status_code == 404


# Options beside the images


@pytest.mark.parametrize(
    "options", [{"top_k": "1"}, {"version": "1"}, {"top_k": "2", "version": "1", "record": "durable", "reference": "a"}]
)
def test_options_mean_the_same_in_query_form_and_json(http, model, options):
    asked = predict(http, model, picture(1), **options).json()
    path = f"/v1/models/{model}/predictions"
    in_form = http.post(path, files=files(picture(1)), data=options).json()
    as_json = http.post(path, json=in_json(picture(1)) | options).json()
    for said in (in_form, as_json):
        assert (said["version"], said["predictions"]) == (asked["version"], approximately(asked["predictions"]))


def test_the_query_counts_more_than_the_form(http, model):
    answer = http.post(f"/v1/models/{model}/predictions?top_k=1", files=files(picture(1)), data={"top_k": "3"})
    assert [len(one) for one in answer.json()["predictions"]] == [1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"topk": "1"}, "Unknown form field 'topk': known are top_k, version, record, reference"),
        ({"images": "aGVsbG8="}, "Unknown form field 'images'"),
        ({"top_k": "none"}, "top_k"),
        ({"top_k": "0"}, "top_k"),
        ({"top_k": ["1", "2"]}, "'top_k' was given more than once"),
        ({"record": "never"}, "record"),
    ],
)
def test_a_form_field_that_cannot_be_meant_is_named(http, model, fields, words):
    answer = http.post(f"/v1/models/{model}/predictions", files=files(picture(1)), data=fields)
    assert words in problem(answer, 422, "invalid")["detail"]


def wrapped(text: str) -> str:
    return "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\r\n"


@pytest.mark.parametrize(
    "written",
    [
        lambda text: f"data:image/png;base64,{text}",
        lambda text: f"DATA:image/png;charset=x;BASE64,{text}",
        lambda text: "data:image/png;base64," + text.replace("+", "%2B").replace("=", "%3D"),
        wrapped,
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.rstrip("="),
        lambda text: f"  {text}\n",
    ],
    ids=["data URI", "any data URI", "escaped data URI", "lines", "for URLs", "without padding", "blanks"],
)
@pytest.mark.parametrize("size", [SIZE, SIZE + 1, SIZE + 2])
def test_base64_is_taken_as_tools_write_it(http, model, written, size):
    data = picture(1, size=size)
    expected = predict(http, model, data).json()["predictions"]
    text = base64.b64encode(data).decode()
    answer = http.post(f"/v1/models/{model}/predictions", json={"images": [written(text)]})
    assert answer.json()["predictions"] == approximately(expected)
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [written(text)]}
    assert http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]}).status_code == 200


@pytest.mark.parametrize("text", ["data:image/png,abcd", "data:image/png;base64", "aGVs*bG8=", "a", "aGVsb=G8", "%%%%"])
def test_what_is_no_base64_is_refused(http, model, text):
    answer = http.post(f"/v1/models/{model}/predictions", json={"images": [text]})
    assert "Image 0 (counted from 0) is no base64" in problem(answer, 422, "image-unreadable")["detail"]
