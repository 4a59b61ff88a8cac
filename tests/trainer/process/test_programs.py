"""network.pt2 is made when somebody has asked for it, once, whatever else happens meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.domain import Version
from storage.history import classes, exports, models, versions
from tests.trainer.process.services import SIZE, Service, stored_service
from trainer.export import NotExportable, write_program
from trainer.networks import load_version
from trainer.networks.manifest import PROGRAM
from trainer.process import programs
from trainer.process.programs import make_programs


@pytest.fixture
def service(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Service]:
    with stored_service(tmp_path, migrated_sqlite) as made:
        yield made


def asked_for(service: Service, version: Version) -> None:
    service.world.write(exports.request, version, PROGRAM)


def outcome(service: Service, version: Version) -> tuple[Any, Any]:
    found = service.world.read(exports.find, version, PROGRAM)
    assert found is not None
    return found.agreement, found.error


def test_a_program_is_made_on_evaluation_images_and_says_what_it_is(service: Service, tmp_path: Path):
    version, other = service.learn("cat", "dog"), service.learn("emu", "fox")
    packed = service.pack(version)
    asked_for(service, version)
    assert list(make_programs(service.settings)) == ["plants version 1: network.pt2 added"]
    agreement, error = outcome(service, version)
    assert (agreement["images"], error) == (packed, None)
    now = service.now(version)
    assert PROGRAM not in service.now(other).files
    (folder := tmp_path / "version").mkdir()
    for name, file in now.files.items():
        service.blobs.fetch(file.sha256, folder / name)
    entries = dict.fromkeys(("model", "labels", "agreement", "weights_sha256", "license", "transform"), "")
    program = torch.export.load(folder / PROGRAM, extra_files=entries).module()
    loaded = load_version(folder)
    pixels = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(program(pixels)[2], loaded.probabilities_of(pixels), atol=1e-5, rtol=0)
    assert json.loads(entries["labels"]) == ["cat", "dog"]
    assert json.loads(entries["agreement"]) == agreement
    assert json.loads(entries["transform"]) == loaded.transform.to_json()
    assert (entries["model"], entries["license"]) == ("plants", "not stated")
    assert entries["weights_sha256"] == now.files["weights.safetensors"].sha256
    assert list(make_programs(service.settings)) == []


def test_what_cannot_be_made_is_on_record(service: Service, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: Any, **__: Any) -> None:
        raise NotExportable("this operator is unknown")

    version = service.learn("cat", "dog")
    asked_for(service, version)
    monkeypatch.setattr(programs, "write_program", refused)
    assert list(make_programs(service.settings)) == [
        "plants version 1: no network.pt2, because this operator is unknown"
    ]
    assert outcome(service, version) == (None, "this operator is unknown")


def test_a_version_deleted_meanwhile_leaves_nothing(service: Service, monkeypatch: pytest.MonkeyPatch):
    version, _ = service.learn("cat", "dog"), service.learn("emu", "fox")
    asked_for(service, version)
    plain = write_program

    def deleting(*arguments: Any, **options: Any) -> Any:
        made = plain(*arguments, **options)
        with service.world.database.write() as connection:
            versions.remove(connection, models.lock(connection, "plants"), 1)
        return made

    monkeypatch.setattr(programs, "write_program", deleting)
    before = set(service.blobs.digests())
    list(make_programs(service.settings))
    assert set(service.blobs.digests()) < before


def test_nobody_waits_for_a_program_of_a_deleted_version(service: Service):
    version, _ = service.learn("cat", "dog"), service.learn("emu", "fox")
    asked_for(service, version)
    with service.world.database.write() as connection:
        versions.remove(connection, models.lock(connection, "plants"), 1)
    list(make_programs(service.settings))
    assert service.world.read(exports.waiting) == []


def test_a_program_calls_classes_by_their_names(service: Service, tmp_path: Path):
    version = service.learn("cat", "dog")
    with service.world.database.write() as connection:
        classes.rename(connection, models.lock(connection, "plants"), "dog", "wolf")
    asked_for(service, version)
    list(make_programs(service.settings))
    entries = {"labels": ""}
    service.blobs.fetch(service.now(version).files[PROGRAM].sha256, tmp_path / PROGRAM)
    torch.export.load(tmp_path / PROGRAM, extra_files=entries)
    assert json.loads(entries["labels"]) == ["cat", "wolf"]


def test_a_killed_process_is_followed_by_another(service: Service):
    version = service.learn("cat", "dog")
    asked_for(service, version)
    environment = service.environment() | {"ACCRETE_LEASE_SECONDS": "1", "ACCRETE_HEARTBEAT_SECONDS": "0.2"}
    command = [sys.executable, "-m", "trainer.process.programs"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    begun = time.monotonic()
    while service.world.read(exports.waiting):
        assert time.monotonic() - begun < 120
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if PROGRAM not in service.now(version).files:
        while not service.world.read(exports.waiting):
            assert time.monotonic() - begun < 120
            time.sleep(0.05)
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert PROGRAM in service.now(version).files
    assert outcome(service, version)[1] is None
