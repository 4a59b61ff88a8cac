"""Bad files of a batch: too many are refused at once, and the others are told, bounded, wherever a batch is."""

import httpx
import pytest

from tests.api.worlds import World, class_folders, picture, problem
from tests.storage.packing import zipped

ROUTES = pytest.mark.parametrize("route", ["increments", "batches"])


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
    world.cancel_everything()


@ROUTES
def test_what_is_ignored_is_no_bad_file_however_much_it_is(world: World, route: str):
    beside: dict[str, bytes] = {"README.md": b"", "classes.txt": b"", "cat/.DS_Store": b"", "cat/Thumbs.db": b""}
    _, answer = sent(world, route, class_folders("cat", "dog", each=2) | beside | of_kind("cat/{}.txt", 20))
    assert answer.is_success, answer.text
    assert answer.json()["rejects"] == []
    world.cancel_everything()
