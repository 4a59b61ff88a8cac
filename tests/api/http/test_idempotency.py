"""Idempotency-Key: the same request again gets the same answer and changes nothing, also after a crash in between."""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from tests.api.worlds import World, class_zip, eventually, picture, problem


def stored(world: World) -> set[str]:
    return set(world.blobs.digests())


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def rows(world: World) -> dict[str, int]:
    with world.database.read() as connection:
        counts = {
            table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            for table in ("batches", "images", "increments", "versions", "answers")
        }
    return {table: int(count or 0) for table, count in counts.items()}


@pytest.mark.parametrize("content", [b"", class_zip("a", "b")], ids=["empty", "archive"])
def test_a_batch_is_made_once(world: World, content: bytes):
    model = world.model()
    path = f"/v1/models/{model}/batches"
    first = world.http.post(path, content=content, headers=keyed("one"))
    before = rows(world)
    again = world.http.post(path, content=content, headers=keyed("one"))
    assert (again.status_code, again.json(), again.headers["Location"]) == (
        201,
        first.json(),
        first.headers["Location"],
    )
    assert rows(world) == before
    problem(world.http.post(path, content=class_zip("c", "d"), headers=keyed("one")), 422, "idempotency-mismatch")
    assert world.http.post(path, content=content, headers=keyed("two")).json()["id"] != first.json()["id"]


def test_images_are_added_once(world: World):
    batch = world.http.post(f"/v1/models/{world.model()}/batches").json()["id"]
    path = f"/v1/batches/{batch}/images"

    def send(seed: int, *, label: str = "a", key: str = "k") -> httpx.Response:
        return world.http.post(path, params={"label": label}, content=picture(seed), headers=keyed(key))

    first = send(1)
    before = rows(world)
    assert send(1).json() == first.json()
    assert rows(world) == before
    problem(send(2), 422, "idempotency-mismatch")
    problem(send(1, label="b"), 422, "idempotency-mismatch")
    assert rows(world) == before
    assert send(1, key="other").json() != first.json()
    assert world.http.get(f"/v1/batches/{batch}").json()["images"] == 2


def test_an_answer_stays_true_when_the_batch_has_gone_on(world: World):
    model = world.model()
    batch = world.http.post(f"/v1/models/{model}/batches", headers=keyed("b")).json()
    path = f"/v1/batches/{batch['id']}/images"
    sent: list[dict[str, Any]] = [
        {"params": {"label": label}, "content": picture(10 * n), "headers": keyed(f"{label}{n}")}
        for label in "ab"
        for n in range(3 * (ord(label) - 96), 3 * (ord(label) - 96) + 3)
    ]
    answers = [world.http.post(path, **one).json() for one in sent]
    increment = world.http.post(f"/v1/models/{model}/increments", json={"batch_id": batch["id"]})
    assert increment.status_code == 202
    assert [world.http.post(path, **one).json() for one in sent] == answers
    assert world.http.post(f"/v1/models/{model}/batches", headers=keyed("b")).json() == batch
    fresh = world.http.post(path, params={"label": "a"}, content=picture(77), headers=keyed("fresh"))
    problem(fresh, 409, "batch-closed")


def test_a_request_that_was_answered_before_or_is_refused_stores_nothing(world: World):
    model = world.model()
    archive = class_zip("a", "b")
    made = world.http.post(f"/v1/models/{model}/batches", content=archive, headers=keyed("archive")).json()
    assert world.http.delete(f"/v1/batches/{made['id']}").status_code == 204
    before = stored(world)
    assert world.http.post(f"/v1/models/{model}/batches", content=archive, headers=keyed("archive")).json() == made
    assert stored(world) == before  # not even the archive that is there no more

    batch = world.http.post(f"/v1/models/{model}/batches").json()["id"]
    path = f"/v1/batches/{batch}/images"
    for label in "cd":
        for seed in (501, 502, 503):
            world.http.post(path, params={"label": label}, content=picture(seed + ord(label)))
    world.http.post(f"/v1/models/{model}/increments", json={"batch_id": batch})
    before = stored(world)
    late = world.http.post(path, params={"label": "c"}, content=picture(504), headers=keyed("late"))
    problem(late, 409, "batch-closed")
    assert stored(world) == before


def test_a_promotion_is_made_once_whatever_has_happened_since(world: World):
    model = world.model()
    world.version(model, "a", "b")
    world.version(model, "c", "d")
    path = f"/v1/models/{model}/current"
    etag = world.http.get(path).headers["ETag"]
    headers = keyed("back") | {"If-Match": etag}
    first = world.http.put(path, json={"version": 1}, headers=headers)
    assert (first.status_code, first.json()["version"]) == (200, 1)
    again = world.http.put(path, json={"version": 1}, headers=headers)  # If-Match alone would be 412 now
    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, first.json(), first.headers["ETag"])
    assert world.http.put(path, json={"version": 2}).json()["version"] == 2
    assert world.http.put(path, json={"version": 1}, headers=headers).json() == first.json()
    assert world.http.get(path).json()["version"] == 2
    problem(world.http.put(path, json={"version": 2}, headers=headers), 422, "idempotency-mismatch")
    problem(world.http.put(path, json={"version": 1}, headers={"If-Match": etag}), 412, "precondition-failed")


def test_a_refusal_is_not_remembered(world: World):
    model = world.model()
    path = f"/v1/models/{model}/current"
    problem(world.http.put(path, json={"version": 1}, headers=keyed("k")), 404, "version-not-found")
    world.version(model, "a", "b")
    assert world.http.put(path, json={"version": 1}, headers=keyed("k")).status_code == 200


def test_keys_of_one_model_are_not_those_of_another_and_of_one_route_not_of_others(world: World):
    one, two = world.model(), world.model()
    first = world.http.post(f"/v1/models/{one}/batches", headers=keyed("k")).json()
    assert world.http.post(f"/v1/models/{two}/batches", headers=keyed("k")).json()["id"] != first["id"]
    path = f"/v1/batches/{first['id']}/images"
    problem(
        world.http.post(path, params={"label": "a"}, content=picture(1), headers=keyed("k")),
        422,
        "idempotency-mismatch",
    )


ARCHIVE, OTHER_ARCHIVE = class_zip("a", "b"), class_zip("a", "b", each=4)
OPTIONS = {"strategy": "lwf", "recipe": '{"epochs": 3}', "promote": "manual", "known_classes": "rehearse"}
OTHER_OPTIONS = {"strategy": "finetune", "recipe": '{"epochs": 4}', "promote": "auto", "known_classes": "refuse"}
BATCH = "the batch"  # stands for its id


@dataclass(frozen=True)
class Asked:
    """A request to one of the routes that take a key; the model and the batch are put in when it is sent."""

    method: str = "POST"
    path: str = "/v1/models/{model}/increments"
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    document: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, world: World, *, model: str, batch: str) -> httpx.Response:
        path = self.path.format(model=model, batch=batch)
        document = {name: batch if value == BATCH else value for name, value in (self.document or {}).items()}
        body: dict[str, Any] = {"content": self.content} if self.document is None else {"json": document}
        return world.http.request(
            self.method, path, params=dict(self.params), headers={**self.headers, **keyed("k")}, **body
        )


BY_QUERY = Asked(params=OPTIONS, content=ARCHIVE)
BY_DOCUMENT = Asked(document={**OPTIONS, "recipe": {"epochs": 3}, "batch_id": BATCH})
PLAIN = Asked(content=ARCHIVE)
COLLECT = Asked(path="/v1/models/{model}/batches", content=ARCHIVE)
ADD = Asked(path="/v1/batches/{batch}/images", params={"label": "a", "split": "train"}, content=picture(1))
PROMOTE = Asked("PUT", "/v1/models/{model}/current", document={"version": 1}, headers={"If-None-Match": '"7"'})


def optioned(base: Asked, **changed: str) -> Asked:
    return replace(base, params={**base.params, **changed})


def documented(**changed: Any) -> Asked:
    return replace(BY_DOCUMENT, document={**(BY_DOCUMENT.document or {}), **changed})


DIFFERENT = {
    **{f"increment, {name}": (BY_QUERY, optioned(BY_QUERY, **{name: other})) for name, other in OTHER_OPTIONS.items()},
    **{f"increment, {name} too": (PLAIN, optioned(PLAIN, **{name: OPTIONS[name]})) for name in OPTIONS},
    "increment, no options": (BY_QUERY, PLAIN),
    "increment, archive": (BY_QUERY, replace(BY_QUERY, content=OTHER_ARCHIVE)),
    "increment, batch for archive": (BY_QUERY, BY_DOCUMENT),
    "increment, archive for batch": (BY_DOCUMENT, BY_QUERY),
    "increment of a batch, strategy": (BY_DOCUMENT, documented(strategy="finetune")),
    "increment of a batch, recipe": (BY_DOCUMENT, documented(recipe={"epochs": 4})),
    "increment of a batch, promote": (BY_DOCUMENT, documented(promote="auto")),
    "increment of a batch, known_classes": (BY_DOCUMENT, documented(known_classes="refuse")),
    "increment of a batch, batch": (BY_DOCUMENT, documented(batch_id="0" * 32)),
    "batch, archive": (COLLECT, replace(COLLECT, content=OTHER_ARCHIVE)),
    "batch, empty": (COLLECT, replace(COLLECT, content=b"")),
    "batch after an increment": (PLAIN, COLLECT),
    "increment after a batch": (COLLECT, PLAIN),
    "images, label": (ADD, optioned(ADD, label="b")),
    "images, split": (ADD, optioned(ADD, split="test")),
    "images, no split": (ADD, replace(ADD, params={"label": "a"})),
    "images, image": (ADD, replace(ADD, content=picture(2))),
    "images after an increment": (PLAIN, ADD),
    "promotion, version": (PROMOTE, replace(PROMOTE, document={"version": 2})),
    "promotion, If-None-Match": (PROMOTE, replace(PROMOTE, headers={"If-None-Match": '"8"'})),
    "promotion, If-Match": (PROMOTE, replace(PROMOTE, headers={"If-Match": "*"})),
    "promotion, no condition": (PROMOTE, replace(PROMOTE, headers={})),
    "promotion after a batch": (COLLECT, PROMOTE),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_key_is_good_for_the_whole_request_and_no_other(world: World, name: str):
    model = world.model()
    asked, other = DIFFERENT[name]
    if PROMOTE in (asked, other):
        world.version(model, "c", "d")
        world.version(model, "e", "f")
    kept = COLLECT.path.format(model=model)
    batch = world.http.post(kept, content=b"" if ADD in (asked, other) else ARCHIVE).json()["id"]
    first = asked.send(world, model=model, batch=batch)
    assert first.is_success, first.text
    before = rows(world), stored(world)
    problem(other.send(world, model=model, batch=batch), 422, "idempotency-mismatch")
    assert (rows(world), stored(world)) == before
    assert asked.send(world, model=model, batch=batch).json() == first.json()
    assert (rows(world), stored(world)) == before


def test_an_increment_is_given_again_though_the_model_has_other_defaults_by_now(world: World):
    model = world.model()
    asked = replace(PLAIN, params={"strategy": "joint"})
    first = asked.send(world, model=model, batch="")
    changed = world.http.patch(f"/v1/models/{model}", json={"retention": "exemplars"})
    assert changed.status_code == 200
    assert asked.send(world, model=model, batch="").json() == first.json()
    fresh = world.http.post(asked.path.format(model=model), params=asked.params, content=class_zip("x", "y"))
    problem(fresh, 422, "strategy-unfit")


def at_once(call: Callable[[], httpx.Response], count: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]


def test_of_many_at_once_one_makes_the_batch(world: World):
    path = f"/v1/models/{world.model()}/batches"
    before = rows(world)
    answers = at_once(lambda: world.http.post(path, content=class_zip("a", "b"), headers=keyed("k")), 8)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert rows(world) == before | {"batches": before["batches"] + 1, "answers": before["answers"] + 1}


def test_an_answer_that_never_arrived_is_given_again(world: World):
    model = world.model()
    world.version(model, "a", "b")
    world.version(model, "c", "d")
    path, url = f"/v1/models/{model}/current", world.http.base_url
    body = b'{"version": 1}'
    request = (
        f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: k\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 0)) as client:
        client.sendall(request.encode() + body)
        assert eventually(lambda: world.http.get(path).json()["version"] == 1)
    again = world.http.put(path, json={"version": 1}, headers=keyed("k"))
    assert (again.status_code, again.json()) == (200, world.http.get(path).json())
