"""A version of an earlier release gets its executable when the service starts, and the service ends as always."""

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from api.client.client import Client
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.database.tables import versions
from storage.settings import Settings
from tests.flow.conftest import Grower, Service
from tests.patterns import QUICK, SIZE
from trainer.networks import load_version

pytestmark = pytest.mark.flow


def forget_executables(service: Service) -> None:
    """Leave versions as a release before network.onnx wrote them."""
    settings = Settings(home=service.home)
    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    with database.write() as connection:
        for model_id, number, files in connection.execute(
            select(versions.c.model_id, versions.c.number, versions.c.files)
        ).all():
            this = (versions.c.model_id == model_id) & (versions.c.number == number)
            del files["network.onnx"]
            manifest = json.loads(blobs.get(files["version.json"]["sha256"]))
            del manifest["files"]["network.onnx"]
            written = json.dumps(manifest).encode()
            files["version.json"] = {"sha256": blobs.put(written), "bytes": len(written)}
            connection.execute(update(versions).where(this).values(files=files))
    database.close()


def test_the_worker_upgrades_while_increments_go_on(tmp_path: Path) -> None:
    service = Service(tmp_path / "home")
    service.start()
    with Client(service.url) as client:
        client.create_model("plants", image_size=SIZE, recipe=QUICK, memory={"per_class": 10})
        grower = Grower(client, tmp_path, "plants")
        grower.learn("anise", "basil")
        before = client.version("plants", 1)
    assert service.stop() == 0
    forget_executables(service)
    service.start()
    with Client(service.url) as client:
        assert Grower(client, tmp_path, "plants").learn("chive", "dill")["version"] == 2
        deadline = time.monotonic() + 240
        while "network.onnx" not in client.version("plants", 1)["files"]:
            assert time.monotonic() < deadline, service.log("worker")
            time.sleep(0.1)
        assert client.version("plants", 1)["files"]["network.onnx"]["bytes"] > 1000
        client.download("plants", 1, folder := tmp_path / "version")
        assert load_version(folder).labels == ("anise", "basil")
        assert client.version("plants", 1)["files"]["weights.safetensors"] == before["files"]["weights.safetensors"]
    assert service.stop() == 0
    assert "plants version 1: network.onnx added" in service.log("worker")
