"""Increments over HTTP: how they are asked for, what is refused and why, and how they are stopped."""

import json
from threading import Thread

import pytest

from storage.domain import IncrementStatus, StoredCheckpoint
from storage.work import checkpoints, increments
from tests.api.conftest import MAX_REQUEST_BYTES, MAX_UPLOAD_BYTES
from tests.api.worlds import class_folders, class_zip, eventually, picture, problem, redis_server, running
from tests.storage.packing import each_packer, zipped
from trainer import recipes

JSON = {"Content-Type": "application/json"}


def post(http, model, content=None, **request):
    """Ask a model for an increment."""
    return http.post(f"/v1/models/{model}/increments", content=content, **request)


# How they are asked for


@each_packer
@pytest.mark.parametrize(
    "kind", ["application/zip", "application/x-tar", "application/octet-stream", "application/x-zip-compressed", None]
)
def test_an_archive_as_the_body_is_queued_whatever_it_is_called(http, world, pack, kind):
    model = world.model()
    answer = post(
        http, model, pack(class_folders("cat", "dog", each=2)), headers={"Content-Type": kind} if kind else {}
    )
    assert answer.status_code == 202
    asked = answer.json()
    assert answer.headers["location"] == f"/v1/increments/{asked['id']}"
    assert http.get(answer.headers["location"]).json() == asked
    batch = http.get(f"/v1/batches/{asked['batch_id']}").json()
    assert [(count["label"], count["train"]) for count in batch["classes"]] == [("cat", 2), ("dog", 2)]
    assert world.scratch == []


def test_a_fresh_increment_shows_everything_it_will_do(http, world):
    model = world.model(recipe={"preset": "quick", "epochs": 3}, strategy="finetune")
    asked = world.increment(model, "cat", "dog")
    assert {name: asked[name] for name in asked if name not in {"id", "batch_id", "recipe", "created_at"}} == {
        "model": model,
        "edit": None,
        "status": "queued",
        "attempt": 0,
        "strategy": "finetune",
        "promote": "auto",
        "known_classes": "refuse",
        "parent": None,
        "version": None,
        "promoted": None,
        "note": None,
        "progress": None,
        "notices": [],
        "rejects": [],
        "reject_count": 0,
        "error": None,
        "attempts": [],
        "seconds": {},
        "started_at": None,
        "finished_at": None,
    }
    expected = recipes.resolve("finetune", {"preset": "quick", "epochs": 3})
    assert asked["recipe"] == expected.model_dump(mode="json")


ASKED = {"strategy": "finetune", "recipe": '{"epochs": 10}', "promote": "manual", "known_classes": "rehearse"}


def check_asked(answer):
    assert answer.status_code == 202, answer.text
    seen = answer.json()
    assert {name: seen[name] for name in ASKED if name != "recipe"} == {
        name: value for name, value in ASKED.items() if name != "recipe"
    }
    assert seen["recipe"]["epochs"] == 10


def test_wishes_come_by_query(http, world):
    check_asked(post(http, world.model(), class_zip("cat", "dog"), params=ASKED))


@pytest.mark.parametrize("archive_last", [True, False])
def test_wishes_come_by_form_field_before_or_after_the_archive(http, world, archive_last):
    fields = [(name, (None, value)) for name, value in ASKED.items()]
    archive = [("data", ("cats.zip", class_zip("cat", "dog"), "application/zip"))]
    check_asked(post(http, world.model(), files=fields + archive if archive_last else archive + fields))


def test_wishes_come_by_json_with_a_batch(http, world):
    model = world.model()
    batch = http.post(f"/v1/models/{model}/batches", content=class_zip("cat", "dog")).json()
    body = ASKED | {"recipe": {"epochs": 10}, "batch_id": batch["id"]}
    check_asked(post(http, model, json.dumps(body), headers={"Content-Type": "Application/JSON; charset=utf-8"}))


def test_the_query_goes_before_the_form(http, world):
    files = {"data": ("x", class_zip("cat", "dog")), "promote": (None, "auto")}
    assert post(http, world.model(), files=files, params={"promote": "manual"}).json()["promote"] == "manual"


def test_files_of_a_batch_that_are_no_images_are_listed_with_the_increment(http, world):
    files = class_folders("cat", "dog", each=9) | {"cat/film.mp4": b"", "cat.png": picture(1)}
    rejects = post(http, world.model(), zipped(files)).json()["rejects"]
    assert {reject["file"] for reject in rejects} == {"cat/film.mp4", "cat.png"}
    assert all(reject["reason"] for reject in rejects)


def test_class_names_come_back_letter_by_letter(http, world):
    model = world.model()
    asked = world.increment(model, "Kätzchen", "狗", "a b")
    batch = http.get(f"/v1/batches/{asked['batch_id']}").json()
    assert [count["label"] for count in batch["classes"]] == ["Kätzchen", "a b", "狗"]


# What is refused


def test_an_unknown_model_is_named_before_the_body_is_taken_in(http, world):
    assert "nobody" in problem(post(http, "nobody", class_zip("cat", "dog")), 404, "model-not-found")["detail"]
    problem(post(http, "nobody", json.dumps({"batch_id": "x"}), headers=JSON), 404, "model-not-found")


def test_known_classes_are_refused_by_name(http, world):
    model = world.model()
    world.version(model, "cat", "dog")
    waiting = world.increment(model, "emu", "fox")
    refused = problem(post(http, model, class_zip("dog", "emu", "gnu")), 409, "classes-already-known")
    assert refused["classes"] == ["dog", "emu"]
    assert "'dog'" in refused["detail"]
    assert "known_classes=rehearse" in refused["detail"]
    assert "duplicate_of" not in refused
    assert post(http, model, class_zip("dog", "gnu"), params={"known_classes": "rehearse"}).status_code == 202

    again = problem(post(http, model, class_zip("emu", "fox")), 409, "classes-already-known")
    assert again["duplicate_of"] == waiting["id"]


def test_images_of_known_classes_alone_are_taken_if_something_of_every_class_is_shown(http, world):
    model = world.model()
    world.version(model, "cat", "dog", "emu")  # of which no image is stored
    problem(post(http, model, class_zip("cat", "dog", "emu")), 409, "classes-already-known")
    rehearse = {"known_classes": "rehearse"}
    refused = problem(post(http, model, class_zip("cat"), params=rehearse), 422, "nothing-to-learn")
    assert refused["classes"] == ["dog", "emu"]
    assert all(part in refused["detail"] for part in ("no new class", "'dog', 'emu'", "memory"))
    assert http.get(f"/v1/models/{model}/increments").json()["items"][1:] == []  # that of the version alone
    assert post(http, model, class_zip("cat", "dog", "emu"), params=rehearse).status_code == 202
    assert post(http, model, class_zip("cat"), params=rehearse).status_code == 202  # the queued ones are kept by then
    full = world.model(memory={"total": 1})  # places for fewer classes than there are: none is rehearsed
    world.increment(full, "cat", "dog")
    assert problem(post(http, full, class_zip("cat"), params=rehearse), 422, "nothing-to-learn")["classes"] == ["dog"]


def test_one_class_without_rehearsal_is_refused_with_the_ways_out(http, world):
    first = problem(post(http, world.model(), class_zip("cat")), 422, "nothing-to-learn")
    assert "second new class" in first["detail"]
    model = world.model(memory=None)
    world.version(model, "cat", "dog")
    later = problem(post(http, model, class_zip("emu")), 422, "nothing-to-learn")
    assert "rehearsal" in later["detail"]
    assert later["classes"] == ["emu"]
    assert http.patch(f"/v1/models/{model}", json={"memory": {"per_class": 5}}).status_code == 200
    assert post(http, model, class_zip("emu")).status_code == 202


def test_a_memory_without_a_place_for_every_class_sets_nothing_beside_a_single_new_one(http, world):
    model = world.model(memory={"total": 1})
    world.version(model, "cat", "dog")
    refused = problem(post(http, model, class_zip("emu")), 422, "nothing-to-learn")
    assert "a memory with a place for every class" in refused["detail"]
    assert http.patch(f"/v1/models/{model}", json={"memory": {"total": 2}}).status_code == 200
    assert post(http, model, class_zip("emu")).status_code == 202


def test_a_class_of_one_image_is_refused(http, world):
    content = zipped(class_folders("cat") | {"dog/1.png": picture(1)})
    assert problem(post(http, world.model(), content), 422, "batch-invalid")["classes"] == ["dog"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "archive-unreadable"),
        (b"\0" * 5000, "archive-unreadable"),
        (b"PK\3\4", "archive-unreadable"),
        (class_zip("cat", "dog")[:-40], "archive-unreadable"),
        (zipped({"a/../../x/1.png": picture(1)}), "archive-unsafe"),
        (zipped({"..\\1.png": picture(1)}), "archive-unsafe"),
        (zipped({"c" * 300 + "/1.png": picture(1)}), "archive-unsafe"),
        (zipped({"readme.md": b"hello"}), "batch-invalid"),
    ],
)
def test_an_archive_that_cannot_be_taken_leaves_nothing(http, world, content, kind):
    model, blobs = world.model(), set(world.blobs.digests())
    problem(post(http, model, content), 422, kind)
    assert http.get(f"/v1/models/{model}/increments").json()["items"] == []
    assert set(world.blobs.digests()) == blobs
    assert world.scratch == []


def test_an_unknown_strategy_is_answered_with_the_list(http, world):
    model, content = world.model(), class_zip("cat", "dog")
    by_query = post(http, model, content, params={"strategy": "lfw"})
    by_form = post(http, model, files={"data": ("x", content), "strategy": (None, "lfw")})
    for answer in (by_query, by_form):
        refused = problem(answer, 422, "unknown-strategy")
        assert refused["known"] == [item["name"] for item in http.get("/v1/strategies").json()["items"]]


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        ('{"epochs": 0}', "epochs = 0: permitted is a whole number at least 1 and at most 2,000"),
        ('{"epochs": 2001}', "at most 2,000"),
        ('{"epochs": "ten"}', "epochs"),
        ('{"epochs": 1.5}', "epochs"),
        ('{"epochs": true}', "epochs"),
        ('{"epochs": null}', "epochs"),
        ('{"momentum": -0.1}', "momentum"),
        ('{"temperature": Infinity}', "temperature"),
        ('{"no_such": 1}', "no_such"),
        ('{"seed": 1e400}', "seed"),
        ('{"seed": ' + "9" * 5000 + "}", "JSON"),
        ("[]", "JSON object"),
        ("3", "JSON object"),
        ('"epochs"', "JSON object"),
        ("{", "JSON"),
        ("", "JSON"),
        ("[" * 20_000, "JSON"),
        ('{"a":' * 5_000, "JSON"),
    ],
)
def test_a_recipe_out_of_range_names_field_and_range(http, world, recipe, named):
    model, content = world.model(), class_zip("cat", "dog")
    by_query = post(http, model, content, params={"recipe": recipe})
    by_form = post(http, model, files={"data": ("x", content), "recipe": (None, recipe)})
    for answer in (by_query, by_form):
        assert named in problem(answer, 422, "recipe-invalid")["detail"]


@pytest.mark.parametrize("name", ["promote", "known_classes"])
def test_a_choice_that_is_none_is_answered_with_the_choices(http, world, name):
    model, content = world.model(), class_zip("cat", "dog")
    choices = {"promote": ["auto", "manual"], "known_classes": ["refuse", "rehearse"]}[name]
    by_query = problem(post(http, model, content, params={name: "maybe"}), 422, "request-invalid")
    by_form = problem(post(http, model, files={"data": ("x", content), name: (None, "maybe")}), 422, "invalid")
    body = json.dumps({"batch_id": "x", name: "maybe"})
    by_json = problem(post(http, model, body, headers=JSON), 422, "invalid")
    for refused in (by_query, by_form, by_json):
        assert name in refused["detail"]
        assert all(choice in refused["detail"] for choice in choices)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("", "JSON"),
        ("{}", "batch_id"),
        ("[]", "JSON"),
        ('{"batch_id": 5}', "batch_id"),
        ('{"batch_id": null}', "batch_id"),
        ('{"batch_id": "x", "epochs": 5}', "epochs"),
        ('{"batch_id": "x", "recipe": "{}"}', "recipe"),
        ("[" * 100_000, "JSON"),
        ('{"batch_id": "\\ud800"}', "JSON"),
    ],
)
def test_a_json_body_is_checked_field_by_field(http, world, body, named):
    assert named in problem(post(http, world.model(), body, headers=JSON), 422, "invalid")["detail"]


@pytest.mark.parametrize("batch_id", ["nothing", "", "0" * 32, "x" * 5000])
def test_a_batch_that_is_not_there(http, world, batch_id):
    problem(post(http, world.model(), f'{{"batch_id": "{batch_id}"}}', headers=JSON), 404, "batch-not-found")


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
NAMED = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.zip"\r\n\r\n'


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"", FORM, 422, "multipart"),
        (b"--x--\r\n", FORM, 422, "'data'"),
        (b"no boundary in here", FORM, 422, "multipart"),
        (NAMED % b"file" + b"PK\r\n--x--\r\n", FORM, 422, "'data'"),
        (NAMED % b"file" + b"P" * (2 << 20) + b"\r\n--x--\r\n", FORM, 413, "'data'"),
        (NAMED % b"data" + b"\r\n--x--\r\n", FORM, 422, "empty"),
        (NAMED % b"data" + b"PK\r\n" + NAMED % b"data" + b"PK\r\n--x--\r\n", FORM, 422, "two parts"),
        (NAMED % b"data" + class_zip("cat", "dog"), FORM, 422, "multipart"),
        ((NAMED % b"a" + b"1\r\n") * 40 + b"--x--\r\n", FORM, 413, "parts"),
        (
            NAMED % b"epochs" + b"3\r\n" + NAMED % b"data" + class_zip("cat", "dog") + b"\r\n--x--\r\n",
            FORM,
            422,
            "epochs",
        ),
        (b"--x\r\n" + b"h" * 100_000, FORM, 422, "multipart"),
        (b"--x\r\n" + b"a: b\r\n" * 100 + b"\r\n\r\n--x--", FORM, 422, "multipart"),
        (b"abc", {"Content-Type": "multipart/form-data"}, 422, "boundary"),
        (b"abc", {"Content-Type": "multipart/form-data; boundary="}, 422, "boundary"),
        (b"abc", {"Content-Type": "multipart/form-data; boundary=" + "x" * 5000}, 422, "boundary"),
        (b"abc", {"Content-Type": "multipart/form-data; boundary*=utf-8''%e2%82%ac"}, 422, "boundary"),
    ],
)
def test_a_form_that_is_not_as_it_should_be(http, world, *, content, headers, status, said):
    answer = post(http, world.model(), content, headers=headers)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]
    assert world.scratch == []


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(http, world):
    model = world.model()

    def chunks():
        for _ in range(MAX_UPLOAD_BYTES // 65536 + 2):
            yield b"\0" * 65536

    declared = problem(post(http, model, b"\0" * (MAX_UPLOAD_BYTES + 1)), 413, "too-large")
    streamed = problem(post(http, model, chunks()), 413, "too-large")
    assert declared["limit"] == streamed["limit"] == MAX_UPLOAD_BYTES
    assert world.scratch == []


def test_json_is_read_into_memory_and_so_has_the_smaller_limit(http, world):
    body = json.dumps({"batch_id": "x" * MAX_REQUEST_BYTES})
    assert problem(post(http, world.model(), body, headers=JSON), 413, "too-large")["limit"] == MAX_REQUEST_BYTES
    other = http.post("/v1/models", content=json.dumps({"name": "x" * MAX_REQUEST_BYTES}), headers=JSON)
    assert problem(other, 413, "too-large")["limit"] == MAX_REQUEST_BYTES


# Idempotency


def test_the_same_key_is_one_increment(http, world):
    model, key = world.model(), {"Idempotency-Key": "monday's batch"}
    archive = class_zip("cat", "dog")  # once: a zip holds the time it was made
    first = post(http, model, archive, headers=key)
    again = post(http, model, archive, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    other = problem(post(http, model, class_zip("emu", "fox"), headers=key), 422, "idempotency-mismatch")
    assert other["increment"] == first.json()["id"]
    assert len(http.get(f"/v1/models/{model}/increments").json()["items"]) == 1
    elsewhere = post(http, world.model(), class_zip("cat", "dog"), headers=key)
    assert elsewhere.json()["id"] != first.json()["id"]


def test_the_same_key_is_one_increment_of_a_batch(http, world):
    model, key = world.model(), {"Idempotency-Key": "k"}
    batch = http.post(f"/v1/models/{model}/batches", content=class_zip("cat", "dog")).json()
    answers = [
        http.post(f"/v1/models/{model}/increments", json={"batch_id": batch["id"]}, headers=key) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()


def test_requests_at_the_same_moment_are_one_increment(http, world):
    model, key, ids = world.model(), {"Idempotency-Key": "k"}, []
    content = class_zip("cat", "dog")
    threads = [
        Thread(target=lambda: ids.append(post(http, model, content, headers=key).json()["id"])) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1


def test_without_a_key_the_same_classes_are_queued_only_once(http, world):
    model, answers = world.model(), []
    content = class_zip("cat", "dog")
    threads = [Thread(target=lambda: answers.append(post(http, model, content).status_code)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [202, 409, 409, 409, 409, 409]


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_a_key_of_no_use_is_refused(http, world, key):
    answer = post(http, world.model(), class_zip("cat", "dog"), headers={"Idempotency-Key": key})
    assert "idempotency" in problem(answer, 422, "request-invalid")["detail"].lower()


# Looking, stopping, trying again


def test_increments_are_listed_latest_first(http, world):
    model = world.model()
    made = [world.increment(model, f"{n} a", f"{n} b")["id"] for n in range(3)]
    path = f"/v1/models/{model}/increments"
    assert [item["id"] for item in http.get(path).json()["items"]] == made[::-1]
    first = http.get(path, params={"limit": 2}).json()
    second = http.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    problem(http.get(path, params={"cursor": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"}), 422, "invalid")


def test_an_increment_shows_its_attempts_and_progress(http, world):
    asked = world.increment(world.model(), "cat", "dog")
    claim = world.claim(asked["id"])
    world.progress(claim, stage="training", epoch=2, epochs=30, step=3, steps=9, loss=0.5)
    seen = http.get(f"/v1/increments/{asked['id']}").json()
    assert (seen["status"], seen["attempt"]) == ("running", 1)
    assert seen["progress"] == {
        "stage": "training",
        "epoch": 2,
        "epochs": 30,
        "step": 3,
        "steps": 9,
        "loss": 0.5,
        "images_per_second": None,
        "eta_seconds": None,
    }
    world.end(claim, IncrementStatus.FAILED, reason="loss is not finite")
    seen = http.get(f"/v1/increments/{asked['id']}").json()
    assert (seen["status"], seen["error"]) == ("failed", "loss is not finite")
    assert [(a["attempt"], a["worker"], a["outcome"], a["reason"]) for a in seen["attempts"]] == [
        (1, "test", "failed", "loss is not finite")
    ]


def test_a_queued_increment_is_cancelled_at_once_and_can_be_tried_again(http, world):
    path = f"/v1/increments/{world.increment(world.model(), 'cat', 'dog')['id']}"
    problem(http.post(f"{path}/retry"), 409, "increment-not-retryable")
    cancelled = http.post(f"{path}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["finished_at"] is not None
    assert "cancelled" in problem(http.post(f"{path}/cancel"), 409, "increment-not-cancellable")["detail"]
    again = http.post(f"{path}/retry")
    assert again.status_code == 202
    assert (again.json()["status"], again.json()["finished_at"]) == ("queued", None)


def test_one_that_is_tried_again_starts_over_without_the_checkpoint_it_failed_with(http, world):
    asked = world.increment(world.model(), "cat", "dog")
    claim = world.claim(asked["id"])
    stored = StoredCheckpoint(world.blobs.put(b"where training stood"), 20, epoch=3)
    with world.database.write() as connection:
        checkpoints.record(connection, claim, stored)
    world.end(claim, IncrementStatus.FAILED, reason="loss is not finite")
    assert world.blobs.exists(stored.sha256)
    assert http.post(f"/v1/increments/{asked['id']}/retry").status_code == 202
    assert not world.blobs.exists(stored.sha256)
    with world.database.read() as connection:
        assert increments.get(connection, asked["id"]).checkpoint is None


def test_a_running_increment_is_asked_to_stop(http, world):
    asked = world.increment(world.model(), "cat", "dog")
    claim = world.claim(asked["id"])
    assert http.post(f"/v1/increments/{asked['id']}/cancel").json()["status"] == "running"
    assert http.post(f"/v1/increments/{asked['id']}/cancel").status_code == 200
    world.end(claim, IncrementStatus.CANCELLED)
    assert http.get(f"/v1/increments/{asked['id']}").json()["status"] == "cancelled"


def test_what_succeeded_can_be_neither_cancelled_nor_tried_again(http, world):
    model = world.model()
    world.version(model, "cat", "dog")
    done = http.get(f"/v1/models/{model}/increments").json()["items"][0]
    assert (done["status"], done["version"], done["promoted"], done["seconds"]) == (
        "succeeded",
        1,
        True,
        {"training": 1.5},
    )
    refused = problem(http.post(f"/v1/increments/{done['id']}/cancel"), 409, "increment-not-cancellable")
    assert "succeeded" in refused["detail"]
    problem(http.post(f"/v1/increments/{done['id']}/retry"), 409, "increment-not-retryable")


def test_trying_again_is_refused_when_another_brought_the_classes(http, world):
    model = world.model()
    asked = world.increment(model, "cat", "dog")
    http.post(f"/v1/increments/{asked['id']}/cancel")
    world.version(model, "dog", "emu")
    refused = problem(http.post(f"/v1/increments/{asked['id']}/retry"), 409, "classes-already-known")
    assert refused["classes"] == ["dog"]


@pytest.mark.parametrize("increment_id", ["nothing", "%C3%A4", "0" * 32, "..%2f..", "a" * 5000])
@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")])
def test_an_increment_that_is_not_there(http, increment_id, method, rest):
    answer = http.request(method, f"/v1/increments/{increment_id}{rest}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_without_redis_an_increment_is_queued_all_the_same(settings_for, tmp_path):
    with redis_server(tmp_path / "redis") as url:
        settings = settings_for(tmp_path, redis_url=url)
        with running(settings) as world:
            world.increment(model := world.model(), "cat", "dog")
    with running(settings) as world:
        assert world.increment(model, "emu", "fox")["status"] == "queued"
        assert eventually(lambda: len(world.http.get(f"/v1/models/{model}/increments").json()["items"]) == 2)
