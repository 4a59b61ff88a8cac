"""How many SQL statements a GET request costs, however long its answer is: routes are found in the description."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, event, insert, select, update

from storage.database import tables
from storage.domain import IncrementStatus, Memory, Model, Reject, Retention, Scope, Version, new_id, now
from storage.history import metrics, models, versions
from storage.logs import request_id
from storage.material import batches
from storage.requests import audit, keys, predictions
from storage.settings import Settings
from tests.api.worlds import Json, World, picture, running
from trainer.process.evaluations import evaluations_of

PAGE = 100
BOUND_OF_LISTS = 5  # statements, the one that finds the key among them
BOUND_OF_OTHERS = 8
FOR_ONE_MODEL = 1  # more, to find whether what is asked for belongs to the model of a key


@pytest.fixture(scope="module")
def statements() -> Iterator[Counter[str]]:
    """Statements that reached a database so far, by the id of the request they were sent for."""
    counted: Counter[str] = Counter()

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement != "BEGIN":
            counted[request_id.get() or ""] += 1

    event.listen(Engine, "before_cursor_execute", count)
    yield counted
    event.remove(Engine, "before_cursor_execute", count)


@pytest.fixture(scope="module")
def full(
    settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory, statements: Counter[str]
) -> Iterator[tuple[World, dict[str, str]]]:
    """A service that asks for keys, with more than a page of everything, and what its paths can be filled with."""
    with running(settings_for(tmp_path_factory.mktemp("full"), keys="required")) as world:
        with world.database.write() as connection:
            secret = keys.create(connection, name="filler", scopes=set(Scope))[1]
        world.http.headers["Authorization"] = f"Bearer {secret}"
        yield world, filled(world)


def filled(world: World) -> dict[str, str]:
    """One model that has more than a page of everything, and more than a page of others; ids of some of it."""
    name = world.model()
    targets = np.arange(PAGE + 1) % 2
    ids = [new_id() for _ in targets]
    results = evaluations_of(np.zeros((PAGE + 1, 2)), targets=targets, ids=ids, task_sizes=[2])
    world.publish(world.claim(world.increment(name, "a", "b")["id"]), ["a", "b"], results=results)
    batch = world.http.post(f"/v1/models/{name}/batches").json()["id"]
    image = world.http.post(f"/v1/batches/{batch}/images", params={"label": "c"}, content=picture(1)).json()
    world.http.patch(f"/v1/models/{name}", json={"keep_predictions": "all"})
    prediction = world.http.post(f"/v1/models/{name}/predictions?record=durable", content=picture(2)).json()
    with world.database.write() as connection:
        model = models.get(connection, name)
        first = versions.get(connection, model, 1)
        increment_id, batch_id = history(connection, model, first)
        alike = {"batch_id": batch_id, "label": "c", "filename": "a.png", "digest": "0" * 64, "size": 1}
        connection.execute(insert(tables.images), [alike | {"id": new_id()} for _ in range(PAGE + 1)])
        for number in range(PAGE):
            another(connection, f"other-{number:03}", first)
            entry = audit.begin(connection, key=None, client="here", action="DELETE /v1/nothing", path="/v1/nothing")
            audit.end(connection, entry, status=404)
        moved = {"image_id": image["images"][0]["id"], "before": "b", "after": "c", "split": None, "versions": [1]}
        moves = [moved | {"model_id": model.id, "key_name": "filler", "created_at": now()} for _ in range(PAGE + 1)]
        connection.execute(insert(tables.relabels), moves)
        for _ in range(PAGE):
            models.set_current(connection, models.get(connection, name), 1, key_name="filler")
        one = predictions.get(connection, prediction["id"])
        predictions.add(connection, [replace(one, id=new_id()) for _ in range(PAGE)])
    return {
        "name": name,
        "number": "1",
        "file": "version.json",
        "batch_id": batch_id,
        "image_id": image["images"][0]["id"],
        "increment_id": increment_id,
        "prediction_id": prediction["id"],
        "position": "0",
    }


def history(connection: Connection, model: Model, first: Version) -> tuple[str, str]:
    """A page of increments like the first, and of versions; ids of one increment and of its batch."""
    found = connection.execute(select(tables.increments).where(tables.increments.c.id == first.increment_id))
    template = {name: value for name, value in found.mappings().one().items() if name != "arrival"}
    document = metrics.of_versions(connection, [first])[0]
    made = {number: increment(connection, model, template, number) for number in range(2, PAGE + 2)}
    for number, (increment_id, _) in made.items():
        versions.add(connection, replace(first, number=number, parent=number - 1, increment_id=increment_id))
        metrics.add(connection, model_id=model.id, version=number, document=document)
    return made[2]


def increment(connection: Connection, model: Model, template: Json, number: int) -> tuple[str, str]:
    """An increment with attempts and bad files of its own; its id and that of its batch."""
    bad = [Reject(f"{place}.png", "is no image") for place in range(PAGE + 1)]
    batch = batches.create(connection, model_id=model.id, archive="0" * 64, archive_kind="zip", rejects=bad)
    made = template | {"id": new_id(), "batch_id": batch.id, "parent": number - 1, "version": number}
    if number % 2:  # there is something to notice about them
        made |= {"strategy": "lucir", "status": IncrementStatus.QUEUED, "version": None, "promoted": None}
    connection.execute(insert(tables.increments).values(made))
    tried = {"increment_id": made["id"], "worker": "test", "started_at": now()}
    connection.execute(insert(tables.attempts), [tried | {"attempt": attempt} for attempt in (1, 2)])
    return made["id"], batch.id


def another(connection: Connection, name: str, like: Version) -> None:
    """A model with a head."""
    settings: dict[str, Any] = {"network": "resnet32", "image_size": 8, "channels": 3, "strategy": "lwf", "recipe": {}}
    made = models.create(connection, name=name, memory=Memory(per_class=20), retention=Retention.ALL, **settings)
    versions.add(connection, replace(like, model_id=made.id))
    connection.execute(update(tables.models).where(tables.models.c.id == made.id).values(head=1, last_version=1))


@pytest.mark.parametrize("is_for_one", [False, True])
def test_a_request_costs_few_statements_however_long_its_answer(full, statements, is_for_one):
    world, parts = full
    described = world.http.get("/openapi.json").json()["paths"]
    reading = {path: methods["get"] for path, methods in described.items() if "get" in methods}
    lists: dict[str, int] = {}
    others: dict[str, int] = {}
    for path, operation in reading.items():
        if "security" not in operation or (is_for_one and "{" not in path):  # those are not for keys of one model
            continue
        is_list = any(parameter["name"] == "limit" for parameter in operation.get("parameters", ()))
        secret = new_key(world, parts["name"] if is_for_one else None)
        counted = lists if is_list else others
        counted[path] = asked(world, path.format(**parts), secret, statements, is_list=is_list)
    assert lists.keys() >= {"/v1/models/{name}/increments", "/v1/models/{name}/versions"}
    assert others.keys() >= {"/v1/models/{name}", "/v1/increments/{increment_id}", "/v2/models/{name}"}
    more = FOR_ONE_MODEL if is_for_one else 0
    assert {path: count for path, count in lists.items() if count > BOUND_OF_LISTS + more} == {}
    assert {path: count for path, count in others.items() if count > BOUND_OF_OTHERS + more} == {}


def new_key(world: World, model: str | None) -> str:
    """A key that the service has not seen yet."""
    with world.database.write() as connection:
        model_id = models.get(connection, model).id if model is not None else None
        return keys.create(connection, name="new", scopes={Scope.ADMIN}, model_id=model_id)[1]


def asked(world: World, path: str, secret: str, statements: Counter[str], *, is_list: bool) -> int:
    """Statements sent for a request, after a look at its answer."""
    number = uuid4().hex
    headers = {"Authorization": f"Bearer {secret}", "X-Request-ID": number}
    params = ({"limit": PAGE} if is_list else {}) | ({"with": 1} if path.endswith("/comparison") else {})
    answer = world.http.get(path, headers=headers, params=params)
    assert answer.is_success, answer.text
    if is_list:
        assert len(answer.json()["items"]) == PAGE
        assert answer.json()["next_cursor"] is not None
    return statements[number]
