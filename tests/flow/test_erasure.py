"""Erasure after the whole way: packed originals, pixels and exemplars, and what later increments do without them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.client.client import Client
from api.client.connection import NotFound
from storage.blobs.directory import DirectoryBlobs
from storage.database.engine import Database
from tests.flow.conftest import Grower, Service
from tests.patterns import picture, write_zip

pytestmark = pytest.mark.flow


def holding(service: Service, data: bytes) -> list[Path]:
    """Stored files with these bytes in them."""
    files = [path for folder in ("blobs", "scratch") for path in (service.home / folder).rglob("*") if path.is_file()]
    return [path for path in files if data in path.read_bytes()]


def images_of(service: Service, model: str) -> dict[str, str]:
    """Ids of a model's stored images by filename."""
    database = Database(f"sqlite:///{service.home.resolve() / 'accrete.db'}")
    with database.read() as connection:
        query = (
            "SELECT images.filename, images.id FROM images JOIN batches ON batches.id = images.batch_id "
            "JOIN models ON models.id = batches.model_id WHERE models.name = ?"
        )
        found = {str(row[0]): str(row[1]) for row in connection.exec_driver_sql(query, (model,))}
    database.close()
    return found


def test_what_is_erased_is_gone_from_packs_and_memory_and_learning_goes_on(
    service: Service, client: Client, grower: Grower, tmp_path: Path
) -> None:
    content = picture("anise", 77_777)  # in no other test's archive: the service is everybody's
    archive = write_zip(tmp_path / "1.zip", ["anise", "basil"], extra={"anise/own.png": content})
    client.wait(client.start_increment(grower.name, archive)["id"])
    before = client.metrics(grower.name)
    stored = images_of(service, grower.name)
    assert client._connection.request("GET", f"/v1/images/{stored['anise/own.png']}").content == content
    assert len(holding(service, content)) == 1
    client.erase_image(stored["anise/own.png"])
    assert holding(service, content) == []
    others = list(images_of(service, grower.name).values())
    assert all(client._connection.request("GET", f"/v1/images/{other}").content for other in others)
    assert len(others) == len(stored) - 1

    assert client.erase_class(grower.name, "basil") == sum(name.startswith("basil/") for name in stored)
    with pytest.raises(NotFound):
        client.erase_class(grower.name, "basil")
    assert client.metrics(grower.name) == before
    ended = grower.learn("chive", "dill")
    assert (ended["status"], ended["version"]) == ("succeeded", 2)
    after = client.metrics(grower.name)
    assert after["tag"]["matrix"][0] == before["tag"]["matrix"][0]


def test_collecting_beside_the_running_service_takes_nothing_that_is_needed(
    service: Service, client: Client, grower: Grower
) -> None:
    grower.learn("anise", "basil")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    environment["ACCRETE_HOME"] = str(service.home)
    orphan = DirectoryBlobs(service.home / "blobs").put(b"left by a process that was killed")
    command = [sys.executable, "-m", "api.commands.commandline", "gc", "--least-age", "0", "--json"]
    runs = [
        json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout) for _ in "ab"
    ]
    assert runs[0]["deleted"] >= 1
    assert runs[1]["deleted"] == 0
    assert not DirectoryBlobs(service.home / "blobs").exists(orphan)
    for image in images_of(service, grower.name).values():
        assert client._connection.request("GET", f"/v1/images/{image}").content
    assert grower.learn("chive", "dill")["version"] == 2
