"""Versions of earlier releases get network.onnx, whatever else happens to them meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from storage import evaluations
from storage.domain import StoredFile
from storage.history import versions
from storage.maintenance.disposal import collect
from tests.trainer.process.services import SIZE, Service, stored_service
from trainer.export import NotExportable, write_executable
from trainer.export.agreement import open_session
from trainer.networks import load_version
from trainer.process import upgrade as upgrading
from trainer.process.upgrade import Looked, upgrade


@pytest.fixture
def service(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Service]:
    with stored_service(tmp_path, migrated_sqlite) as made:
        yield made


def run(service: Service) -> list[Looked]:
    return list(upgrade(service.settings))


def test_every_version_gets_its_executable_and_keeps_its_files(service: Service, tmp_path: Path):
    made = [service.learn("cat", "dog"), service.learn("emu", "fox")]
    assert run(service) == [Looked("plants", 1, None), Looked("plants", 2, None)]
    for version in made:
        now = service.now(version)
        assert now == replace(version, files={**version.files, "network.onnx": now.files["network.onnx"]})
        (folder := tmp_path / str(version.number)).mkdir()
        for name, file in now.files.items():
            service.blobs.fetch(file.sha256, folder / name)
        assert (folder / "network.onnx").stat().st_size == now.files["network.onnx"].bytes
        loaded = load_version(folder)  # version.json names the two files that it was written with
        pixels = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
        session = open_session((folder / "network.onnx").read_bytes(), threads=1)
        (found,) = session.run(["probabilities"], {"pixels": pixels.numpy()})
        assert found == pytest.approx(loaded.probabilities_of(pixels).numpy(), abs=1e-5)
    assert run(service) == []


def test_it_is_compared_on_the_evaluation_images_of_all_tasks_that_are_left(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    first, second = service.learn("cat", "dog"), service.learn("emu", "fox")
    both = [service.pack(first), service.pack(second)]
    compared = []

    def watched(*arguments: Any, pixels: torch.Tensor) -> dict[str, Any]:
        compared.append(pixels)
        raise NotExportable("not today")

    monkeypatch.setattr(upgrading, "write_executable", watched)
    run(service)
    assert [len(pixels) for pixels in compared] == [both[0], sum(both)]
    assert compared[1].shape[1:] == (3, SIZE, SIZE)
    assert len(set(map(bytes, compared[1].flatten(1).numpy()))) == sum(both)
    shard = next(image.shard for image in service.images(second) if image.shard is not None)
    service.blobs.delete(shard)
    run(service)
    assert len(compared[-1]) == both[0]


def test_what_cannot_be_upgraded_is_said_once_and_the_others_are(service: Service, monkeypatch: pytest.MonkeyPatch):
    for labels in ("ab", "cd", "ef"):
        service.learn(*labels)
    missing = service.world.read(versions.get, service.world.model(), 2).files["weights.safetensors"].sha256
    service.blobs.delete(missing)
    written = write_executable
    seen = []

    def some(path: Path, of: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        seen.append(len(of.task_sizes))
        if len(of.task_sizes) == 3:
            raise NotExportable("no exporter knows it")
        return written(path, of, *arguments, **options)

    monkeypatch.setattr(upgrading, "write_executable", some)
    looked = run(service)
    assert [(one.version, one.reason is None) for one in looked] == [(1, True), (2, False), (3, False)]
    assert missing in str(looked[1].reason)
    assert looked[2].reason == "no network.onnx, because no exporter knows it"
    assert seen == [1, 3]


def test_a_version_deleted_meanwhile_gets_nothing_and_leaves_no_blob(service: Service, monkeypatch: pytest.MonkeyPatch):
    service.learn("cat", "dog")
    service.learn("emu", "fox")
    written = write_executable

    def late(*arguments: Any, **options: Any) -> dict[str, Any]:
        if len(arguments[1].task_sizes) == 1:
            service.world.write(versions.remove, service.world.model(), 1)
        return written(*arguments, **options)

    monkeypatch.setattr(upgrading, "write_executable", late)
    run(service)
    assert [version.number for version in service.world.read(versions.without_file, "network.onnx")] == []
    gone = service.world.read(versions.find, service.world.model().id, 1)
    assert gone is not None
    assert "network.onnx" not in gone.files
    everything = set(service.blobs.digests())
    current = service.world.read(versions.get, service.world.model(), 2)
    assert everything == {file.sha256 for file in current.files.values()}


def command(service: Service, *options: str, **streams: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.process.upgrade", *options],
        env=service.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def test_killed_in_between_it_leaves_nothing_wrong_and_two_at_once_finish_the_rest(service: Service):
    made = [service.learn("a", "b"), service.learn("c", "d"), service.learn("e", "f")]
    killed = command(service)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "plants version 1: network.onnx added\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    both = [command(service, "--json") for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    documents = [json.loads(said)["versions"] for said, _ in told]
    assert all(one["reason"] is None for document in documents for one in document)
    assert {one["version"] for document in documents for one in document} <= {1, 2, 3}
    assert service.world.read(versions.without_file, "network.onnx") == []
    for version in made:
        for file in service.now(version).files.values():
            assert len(service.blobs.get(file.sha256)) == file.bytes
    collect(database=service.world.database, blobs=service.blobs, scratch=service.settings.scratch, least_age=0)
    wanted = {file.sha256 for version in made for file in service.now(version).files.values()}
    assert set(service.blobs.digests()) == wanted


def test_attached_it_ends_with_the_process_that_started_it(service: Service):
    for labels in ("ab", "cd", "ef", "gh", "ij", "kl"):
        service.learn(*labels)
    attached = command(service, "--attached", stdin=subprocess.PIPE)
    assert attached.stdout is not None
    attached.stdout.readline()
    assert os.getpriority(os.PRIO_PROCESS, attached.pid) == 19
    assert attached.stdin is not None
    attached.stdin.close()
    began = time.monotonic()
    assert attached.wait(60) == 1
    assert time.monotonic() - began < 30
    attached.stdout.close()
    assert attached.stderr is not None
    attached.stderr.close()
    left = [version.number for version in service.world.read(versions.without_file, "network.onnx")]
    assert left
    assert left[-1] == 6


def test_a_version_gets_its_executable_without_its_evaluations(service: Service):
    version = service.learn("cat", "dog")
    lost = StoredFile(sha256="0" * 64, bytes=1)
    assert service.world.write(versions.add_file, version, evaluations.FILE, lost, exists=lambda _: True)
    assert run(service) == [Looked("plants", 1, None)]
    assert service.now(version).files[evaluations.FILE] == lost
