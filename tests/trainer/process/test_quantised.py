"""network.int8.onnx beside network.onnx: written where it may stand in for it, and never a reason to fail."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from storage.settings import Settings
from tests.trainer.export.trained import Trained, trained
from trainer.learning.compute import ComputeConfig
from trainer.learning.learned import Learned
from trainer.networks import read_manifest
from trainer.process import quantised
from trainer.process.protocol import Made
from trainer.process.quantised import CALIBRATED, add_int8, balanced
from trainer.process.writing import write


def version(folder: Path, of: Trained) -> Path:
    """The folder of a version that has its graph."""
    made = folder / "version"
    made.mkdir()
    (made / "network.onnx").write_bytes(of.content)
    return made


def test_it_is_written_where_it_is_as_accurate(tmp_path: Path) -> None:
    folder = version(tmp_path, trained())
    record = add_int8(folder, trained().learned, trained().measured)
    assert (record["offered"], record["reason"]) == (True, None)
    assert (record["calibration_images"], record["images"]) == (len(trained().learned), len(trained().measured))
    assert record["bytes"]["int8"] == (folder / "network.int8.onnx").stat().st_size
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["network.int8.onnx", "network.onnx", "version"]
    json.dumps(record, allow_nan=False)


def test_with_few_evaluation_images_it_is_not(tmp_path: Path) -> None:
    folder = version(tmp_path, trained())
    record = add_int8(folder, trained().learned, trained().measured.select(torch.arange(100)))
    assert record["offered"] is False
    assert "of 100 images" in record["reason"]
    assert not (folder / "network.int8.onnx").exists()


def test_a_failure_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quantise(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("an operator is unknown\nand much more")

    monkeypatch.setattr(quantised, "quantise", quantise)
    record = add_int8(version(tmp_path, trained()), trained().learned, trained().measured)
    assert record == {"offered": False, "reason": "failed: an operator is unknown"}


def written(folder: Path, *, int8: bool) -> tuple[Path, list[str]]:
    """The folder that the writing stage leaves, and its notes."""
    of, notes = trained(), list[str]()
    job = SimpleNamespace(
        model=SimpleNamespace(name="m", network="resnet32"),
        increment=SimpleNamespace(id="0" * 32, strategy="lwf", recipe={}, edit=None),
    )
    made = Made(
        number=1,
        parent=None,
        tasks=[["a", "b"], ["c", "d"]],
        data_digest="0" * 64,
        code_version="accrete",
        metrics={},
        exemplars={},
        seconds={},
    )
    report = SimpleNamespace(opaque=nullcontext, note=notes.append)
    context = SimpleNamespace(folder=folder, report=report, settings=Settings(int8=int8))
    learned = Learned(of.network, of.transform, ComputeConfig(device="cpu", precision="float32", threads=1))
    write(cast(Any, job), learned, made, cast(Any, context), measured=of.measured, shown=of.learned, execution=None)
    return folder / "version", notes


def test_a_version_has_it_among_its_files_if_the_setting_is_on(tmp_path: Path) -> None:
    folder, notes = written(tmp_path, int8=True)
    manifest = read_manifest(folder)  # which checks the digests
    assert manifest.files.keys() == {"weights.safetensors", "network.onnx", "network.int8.onnx"}
    assert manifest.record["executable"]["int8"]["offered"] is True
    assert notes == []


def test_a_version_does_without_it_if_the_setting_is_off(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, int8=False)
    assert sorted(path.name for path in folder.iterdir()) == ["network.onnx", "version.json", "weights.safetensors"]
    assert "int8" not in read_manifest(folder).record["executable"]


def test_a_version_whose_quantisation_failed_is_published_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantise(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("an operator is unknown")

    monkeypatch.setattr(quantised, "quantise", quantise)
    folder, notes = written(tmp_path, int8=True)
    assert sorted(path.name for path in folder.iterdir()) == ["network.onnx", "version.json", "weights.safetensors"]
    assert notes == ["no network.int8.onnx is offered: failed: an operator is unknown"]


def test_calibration_sees_as_many_images_of_each_class() -> None:
    targets = torch.cat([torch.zeros(5000), torch.ones(300), torch.full((64,), 2), torch.full((3,), 3)]).long()
    chosen = balanced(targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))])
    assert len(chosen) == len(set(chosen.tolist())) == 64 * 3 + 3
    assert int(chosen.max()) < len(targets)
    found = balanced(targets)
    assert targets[found].bincount().tolist() == [64, 64, 64, 3]
    assert int(found[0]) == 0
    assert 4999 in found.tolist()  # spread over all images of the class


def test_calibration_sees_no_more_images_than_it_may_however_many_classes_there_are() -> None:
    targets = torch.arange(1000).repeat(3)
    chosen = balanced(targets)
    assert len(chosen) == CALIBRATED
    assert len(set(targets[chosen].tolist())) == CALIBRATED
    assert max(targets[chosen].tolist()) > 990
    assert len(balanced(torch.empty(0, dtype=torch.int64))) == 0
