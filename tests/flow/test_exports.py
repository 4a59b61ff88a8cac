"""A version leaves the service as a torch.export program, made by the worker; images of predictions are kept."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from api.client.client import Client
from tests.flow.conftest import Grower, Service
from tests.patterns import QUICK, SIZE, unseen

pytestmark = pytest.mark.flow


def test_a_program_gives_the_answers_of_the_service(tmp_path: Path) -> None:
    service = Service(tmp_path / "home")
    service.start()
    with Client(service.url) as client:
        client.create_model("plants", image_size=SIZE, recipe=QUICK, memory={"per_class": 10}, keep_predictions="all")
        grower = Grower(client, tmp_path, "plants")
        grower.learn("anise", "basil")
        first, again = tmp_path / "first.pt2", tmp_path / "again.pt2"
        client.export("plants", 1, first, kind="pt2")
        client.export("plants", 1, again, kind="pt2")
        shown = [*unseen("anise", 3), *unseen("basil", 3)]
        answer = client.predict("plants", shown, durable=True)
        record = client.prediction(answer["id"] or "")
        kept = [client.kept_image(record["id"], position) for position in record["kept"]]
        assert grower.learn("chive", "dill")["version"] == 2
        measured = sum(count or 0 for count in client.version_metrics("plants", 1)["test_images"])
    assert service.stop() == 0
    assert kept == shown
    assert first.read_bytes() == again.read_bytes()
    entries = {"labels": "", "agreement": ""}
    program = torch.export.load(first, extra_files=entries).module()
    assert f'"images": {measured}' in entries["agreement"]
    pixels = torch.stack([pixels_of(data) for data in shown])
    with torch.inference_mode():
        found = program(pixels)[2]
    labels = ["anise", "basil"]
    assert entries["labels"] == '["anise", "basil"]'
    for row, ranked in zip(found, answer["predictions"], strict=True):
        for one in ranked:
            assert row[labels.index(one["label"])].item() == pytest.approx(one["probability"], abs=1e-4)


def pixels_of(data: bytes) -> torch.Tensor:
    """An image file of the model's size as uint8 [3, size, size]."""
    image = Image.open(BytesIO(data)).convert("RGB")
    assert image.size == (SIZE, SIZE)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
