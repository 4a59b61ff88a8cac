"""Bad files of a batch: too many are refused at once, and the others are told, bounded, wherever a batch is."""

import json
from functools import cache
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from api.client.client import Client
from api.commands.commandline import app
from tests.api.worlds import World, class_folders, picture, problem
from tests.storage.packing import zipped

ROUTES = pytest.mark.parametrize("route", ["increments", "batches"])


@cache
def some(each: int) -> dict[str, bytes]:
    """Files of two classes."""
    return class_folders("cat", "dog", each=each)


def sent(world: World, route: str, files: dict[str, bytes]) -> tuple[str, httpx.Response]:
    """An archive to one of the routes that take one, for a fresh model."""
    model = world.model()
    return model, world.http.post(f"/v1/models/{model}/{route}", content=zipped(files))


def of_kind(name: str, count: int) -> dict[str, bytes]:
    return {name.format(number): picture(number) for number in range(count)}


@ROUTES
@pytest.mark.parametrize(
    "bad",
    ["cat/{}.tiff", "cat/{}.mp4", "{}.png", "other/{}.zip", "cat/{}.HEIC", "cat/größe-" + "x" * 200 + "{}.svg"],
    ids=["tiff", "film", "not where expected", "archive", "capitals", "long name"],
)
def test_a_batch_with_too_many_bad_names_is_refused_at_once_and_leaves_nothing(world: World, route: str, bad: str):
    before = set(world.blobs.digests())
    model, answer = sent(world, route, class_folders("cat", "dog", each=8) | of_kind(bad, 6))
    refused = problem(answer, 422, "batch-invalid")
    assert "6 of 22 files are not usable" in refused["detail"]
    assert "0.1" in refused["detail"]
    assert (refused["share"], refused["limit"]) == (6 / 22, 0.1)
    assert len(refused["examples"]) == 5
    assert bad.format(0)[:50] in refused["examples"][0]
    assert len(answer.content) < 3000
    assert world.http.get(f"/v1/models/{model}/increments").json()["items"] == []
    assert set(world.blobs.digests()) == before
    assert world.scratch == []
    with world.database.read() as connection:
        counted = connection.exec_driver_sql(
            f"SELECT count(*) FROM batches JOIN models ON models.id = model_id WHERE name = '{model}'"
        )
        assert counted.scalar() == 0


@ROUTES
def test_as_many_bad_names_as_are_permitted_are_told(world: World, route: str):
    _, answer = sent(world, route, class_folders("cat", "dog", each=9) | of_kind("cat/{}.tiff", 2))  # 2 of 20
    assert answer.is_success, answer.text
    assert [reject["file"] for reject in answer.json()["rejects"]] == ["cat/0.tiff", "cat/1.tiff"]


@ROUTES
def test_what_is_ignored_is_no_bad_file_however_much_it_is(world: World, route: str):
    beside: dict[str, bytes] = {"README.md": b"", "classes.txt": b"", "cat/.DS_Store": b"", "cat/Thumbs.db": b""}
    _, answer = sent(world, route, class_folders("cat", "dog", each=2) | beside | of_kind("cat/{}.txt", 20))
    assert answer.is_success, answer.text
    assert answer.json()["rejects"] == []


MANY = 250


@pytest.fixture
def many(world: World) -> dict[str, Any]:
    """An increment of a batch with many bad files, though not too many for so many images."""
    files = some(9 * MANY // 2)
    _, answer = sent(world, "increments", files | {f"cat/{number:04}.tiff": b"" for number in range(MANY)})
    assert answer.status_code == 202, answer.text
    increment: dict[str, Any] = answer.json()
    return increment


def test_bad_files_are_bounded_wherever_a_batch_or_an_increment_is_told(world: World, many: dict[str, Any]):
    batch = world.http.get(f"/v1/batches/{many['batch_id']}").json()
    increment = world.http.get(f"/v1/increments/{many['id']}").json()
    (listed,) = world.http.get(f"/v1/models/{many['model']}/increments").json()["items"]
    with world.http.stream("GET", f"/v1/increments/{many['id']}/events") as stream:
        line = next(line for line in stream.iter_lines() if line.startswith("data:"))
    for told in (many, batch, increment, listed, json.loads(line.removeprefix("data:"))):
        assert [reject["file"] for reject in told["rejects"]] == [f"cat/{number:04}.tiff" for number in range(100)]
        assert told["reject_count"] == MANY


def test_all_bad_files_are_listed_page_by_page(world: World, many: dict[str, Any]):
    path, found, cursor = f"/v1/batches/{many['batch_id']}/rejects", list[dict[str, str]](), None
    for size in (120, 120, 10):
        page = world.http.get(path, params={"limit": 120, "cursor": cursor} if cursor else {"limit": 120}).json()
        assert len(page["items"]) == size
        found, cursor = found + page["items"], page["next_cursor"]
    assert cursor is None
    assert [one["file"] for one in found] == [f"cat/{number:04}.tiff" for number in range(MANY)]
    assert {frozenset(one) for one in found} == {frozenset({"file", "reason"})}
    assert all(one["reason"] for one in found)


def test_bad_files_of_no_batch_and_odd_pages_are_refused(world: World, many: dict[str, Any]):
    problem(world.http.get("/v1/batches/nothing/rejects"), 404, "batch-not-found")
    path = f"/v1/batches/{many['batch_id']}/rejects"
    problem(world.http.get(path, params={"cursor": "nonsense"}), 422, "invalid")
    problem(world.http.get(path, params={"limit": 1001}), 422, "request-invalid")
    empty = world.http.post(f"/v1/models/{world.model()}/batches").json()["id"]
    assert world.http.get(f"/v1/batches/{empty}/rejects").json() == {"items": [], "next_cursor": None}


def test_the_client_and_the_command_line_get_all_of_them(world: World, many: dict[str, Any]):
    url, batch = str(world.http.base_url), many["batch_id"]
    with Client(url) as client:
        assert len(list(client.rejects(batch))) == MANY
    run = CliRunner()
    short = run.invoke(app, ["batches", "show", batch], env={"ACCRETE_URL": url})
    assert "100 of 250 files" in short.stdout
    assert f"accrete batches show {batch} --all-rejects" in short.stdout
    assert "cat/0249.tiff" not in short.stdout
    complete = run.invoke(app, ["batches", "show", batch, "--all-rejects"], env={"ACCRETE_URL": url})
    assert "cat/0249.tiff" in complete.stdout
    assert "--all-rejects" not in complete.stdout
    program = run.invoke(app, ["batches", "show", batch, "--all-rejects", "--json"], env={"ACCRETE_URL": url})
    assert len(json.loads(program.stdout)["rejects"]) == MANY


def test_an_erased_batch_names_no_file_any_more(world: World):
    _, answer = sent(world, "increments", class_folders("cat", "dog", each=9) | {"cat/name.tiff": b""})
    batch = answer.json()["batch_id"]
    world.http.post(f"/v1/increments/{answer.json()['id']}/cancel")
    assert world.http.delete(f"/v1/batches/{batch}").status_code == 204
    assert world.http.get(f"/v1/batches/{batch}/rejects").json()["items"] == []
    assert world.http.get(f"/v1/batches/{batch}").json()["reject_count"] == 0
