"""An archive that is sent while an equal one is deleted: refused, and taken when it is sent again."""

from collections.abc import Callable

import pytest

from api.admission import queueing
from api.bodies.uploads import Upload
from api.service import Service
from tests.api.worlds import World, class_zip, problem

ROUTES = ("increments", "batches")


@pytest.mark.parametrize("route", ROUTES)
def test_an_archive_that_is_deleted_before_its_commit_is_asked_for_again(
    world: World, route: str, monkeypatch: pytest.MonkeyPatch
):
    name, archive = world.model(), class_zip("cat", "dog")
    path = f"/v1/models/{name}/{route}"
    store: Callable[[Service, Upload], None] = queueing.store

    def store_and_lose(service: Service, upload: Upload) -> None:
        store(service, upload)
        service.blobs.delete(upload.sha256)  # by a process that found nobody to refer to it a moment ago

    with monkeypatch.context() as race:
        race.setattr(queueing, "store", store_and_lose)
        body = problem(world.http.post(path, content=archive), 409, "just-deleted")
    assert "send it again" in body["detail"]
    assert world.http.get(f"/v1/models/{name}/increments").json()["items"] == []
    assert world.http.post(path, content=archive).is_success
