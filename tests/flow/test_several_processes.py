"""`accrete up` with several API processes and logs in JSON, both by settings."""

import json
from pathlib import Path

import psutil
import pytest

from api.client.client import Client
from tests.flow.conftest import Service
from tests.flow.test_worker import processes
from tests.patterns import QUICK, SIZE, unseen, write_zip

pytestmark = pytest.mark.flow


def test_they_teach_predict_and_end_and_every_part_of_ours_logs_json(tmp_path: Path) -> None:
    settings = {"ACCRETE_API_WORKERS": "2", "ACCRETE_LOG_FORMAT": "json", "ACCRETE_LOG_LEVEL": "info"}
    service = Service(tmp_path / "home", settings)
    service.start()
    with Client(service.url) as client:
        client.create_model("m", image_size=SIZE, recipe=QUICK)
        client.wait(client.start_increment("m", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"])
        assert client.predict("m", unseen("anise", 1))["version"] == 1
    everyone = psutil.Process(service.process.pid).children(recursive=True)
    assert len([one for one in processes(service, "--worker") if "api" in one.cmdline()]) == 2
    assert service.stop() == 0
    assert not psutil.wait_procs(everyone, timeout=60)[1]
    lines = {part: service.log(part).splitlines() for part in ("api", "worker")}
    entries = {part: [json.loads(line) for line in lines[part] if line.startswith("{")] for part in lines}
    assert len(entries["api"]) == len(lines["api"])  # the worker's begin with Celery's banner, which is no log
    assert {entry["status"] for entry in entries["api"] if entry["logger"] == "api.requests"} >= {201, 202}
    assert any(entry["logger"].startswith("celery") for entry in entries["worker"])
