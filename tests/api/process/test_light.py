"""The API server does its whole work without torch: looked at from outside, in a process that has done some of it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from api.process.embedded import free_port
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.settings import Settings
from tests.api.worlds import SIZE, World, eventually, picture

HEAVY = ("torch", "torchvision", "safetensors", "onnx", "onnxscript")
# Ends the process that runs the API with what it has imported, once a file appears.
TELLING = """
import pathlib, sys, threading, time
from api.__main__ import main
asked, told = map(pathlib.Path, sys.argv[1:3])
del sys.argv[1:]
def tell():
    while not asked.exists():
        time.sleep(0.02)
    told.with_suffix(".part").write_text("\\n".join(sys.modules))
    told.with_suffix(".part").rename(told)
threading.Thread(target=tell, daemon=True).start()
main()
"""


@pytest.fixture
def world(settings_for, tmp_path) -> Iterator[World]:
    """A server in a process of its own, whose imported modules are written to a file on request."""
    (tmp_path / "home").mkdir()
    settings: Settings = settings_for(tmp_path / "home", port=free_port("127.0.0.1"))
    given = {f"ACCRETE_{name.upper()}": str(getattr(settings, name)) for name in ("home", "port", "redis_url", "keys")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")} | given
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", TELLING, str(tmp_path / "asked"), str(tmp_path / "told")]
    process = subprocess.Popen(command, env=environment)
    database = Database(settings.database)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=60) as http:

            def is_ready() -> bool:
                assert process.poll() is None
                try:
                    return http.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            assert eventually(is_ready)
            yield World(settings, http, database, open_blobs(settings.blobs))
    finally:
        database.close()
        process.terminate()
        assert process.wait(60) == 0


def test_it_predicts_promotes_and_swaps_without_torch(world, tmp_path):
    http = world.http
    name = world.model(strategy="lwm-bsr")  # whose fitness depends on the network
    world.version(name, "cat", "dog")
    predictions = f"/v1/models/{name}/predictions"
    assert http.post(predictions, content=picture(1)).json()["version"] == 1
    tensor = {"name": "image", "shape": [1, 3, SIZE, SIZE], "datatype": "FP32", "data": [0.5] * (3 * SIZE * SIZE)}
    assert http.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}).json()["model_version"] == "1"
    world.version(name, "emu", "fox")
    assert eventually(lambda: http.post(predictions, content=picture(1)).json()["version"] == 2)
    assert http.put(f"/v1/models/{name}/current", json={"version": 1}).json()["version"] == 1
    assert http.post(predictions, params={"version": 2}, content=picture(1)).json()["version"] == 2
    assert http.get("/v1/strategies").status_code == http.get("/metrics").status_code == 200
    assert http.get(f"/v1/models/{name}/metrics.png").headers["content-type"] == "image/png"
    refused = http.post("/v1/models", json={"name": "never", "network": "alexnet", "image_size": 16})
    assert refused.status_code == 422
    mapped = "".join(Path(f"/proc/{child.pid}/maps").read_text() for child in psutil.Process().children())
    assert "onnxruntime" in mapped
    assert not re.search(r"/(torch|torchvision)/", mapped)
    (tmp_path / "asked").touch()
    assert eventually((tmp_path / "told").exists)
    imported = {module.partition(".")[0] for module in (tmp_path / "told").read_text().split()}
    assert "onnxruntime" in imported
    assert not imported & set(HEAVY)
