"""An increment with ACCRETE_INT8: its version says whether it is offered in int8, and is served all the same."""

from pathlib import Path

import httpx
import pytest

from api.client.client import Client
from tests.flow.conftest import Grower, Service
from tests.patterns import QUICK, SIZE, unseen

pytestmark = pytest.mark.flow


def test_with_few_evaluation_images_it_is_compared_and_not_offered(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", {"ACCRETE_INT8": "true", "ACCRETE_SERVING_PRECISION": "int8"})
    service.start()
    with Client(service.url) as client:
        client.create_model("plants", image_size=SIZE, recipe=QUICK, memory={"per_class": 10})
        grower = Grower(client, tmp_path, "plants")
        grower.learn("anise", "basil")
        grower.learn("chive", "dill")
        version = client.version("plants", 2)
        measured = sum(count or 0 for count in client.version_metrics("plants", 2)["test_images"])
        answer = httpx.post(f"{service.url}/v1/models/plants/predictions", content=unseen("dill", 1)[0])
        manifest = httpx.get(f"{service.url}/v1/models/plants/versions/2/files/version.json").json()
    assert service.stop() == 0
    assert answer.status_code == 200, answer.text
    assert "network.int8.onnx" not in version["files"]
    record = manifest["executable"]["int8"]
    assert record["offered"] is False
    assert record["reason"].startswith("not shown: ")
    assert record["images"] == measured
    assert record["calibration_images"] > 48  # those of the batch, and exemplars of the old classes
    assert record["drop_at_most"] > record["allowed"]
    assert record["bytes"]["int8"] < record["bytes"]["float32"] / 3
    assert "no network.int8.onnx is offered: not shown" in service.log("worker")
    assert not [path for path in (service.home / "scratch").rglob("*") if path.is_file()]
