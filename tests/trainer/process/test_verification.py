"""A version is read back from its files before it is published."""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from storage.errors import Invalid
from trainer.learning.compute import ComputeConfig
from trainer.learning.data import ImageSet
from trainer.learning.learned import Learned
from trainer.networks import EvaluationTransform, build, write_version
from trainer.process import writing
from trainer.process.protocol import Made
from trainer.process.verification import check_written


def written(folder: Path, *, scale: float = 1.0) -> Path:
    """A version of two classes, its last weights times some number."""
    network = build("resnet32", channels=3, image_size=8, task_sizes=[2])
    with torch.no_grad():
        for parameter in list(network.parameters())[-2:]:
            parameter.mul_(scale).add_(scale - 1)
    transform = EvaluationTransform(8, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    write_version(folder, network, transform=transform, manifest={"tasks": [["cat", "dog"]]})
    return folder


def test_what_was_written_whole_passes(tmp_path: Path) -> None:
    check_written(written(tmp_path))


def test_a_network_that_computes_no_probabilities_is_refused_for_good(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="computes no probabilities"):
        check_written(written(tmp_path, scale=float("inf")))


def test_a_file_that_was_not_written_as_it_should_is_a_fault_of_this_attempt(tmp_path: Path) -> None:
    folder = written(tmp_path)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ValueError, match="damaged"):
        check_written(folder)


def test_labels_that_do_not_fit_the_weights_are_a_fault_of_this_attempt(tmp_path: Path) -> None:
    folder = written(tmp_path)
    manifest = folder / "version.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"tasks": [["cat", "dog", "emu"]]}))
    with pytest.raises(RuntimeError, match="size mismatch"):
        check_written(folder)


def test_the_writing_stage_ends_no_attempt_well_whose_files_are_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(folder: Path, *arguments: Any, **options: Any) -> None:
        write_version(folder, *arguments, **options)
        weights = folder / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8])

    increment = SimpleNamespace(id="0" * 32, strategy="lwf", recipe={}, edit=None)
    job = SimpleNamespace(model=SimpleNamespace(name="m"), increment=increment)
    transform = EvaluationTransform(8, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    network = build("resnet32", channels=3, image_size=8, task_sizes=[2])
    made = Made(
        number=1,
        parent=None,
        tasks=[["cat", "dog"]],
        data_digest="0" * 64,
        code_version="accrete",
        metrics={},
        exemplars={},
        seconds={},
    )
    measured = ImageSet(torch.empty(0, 3, 8, 8, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), ())
    learned = Learned(network, transform, ComputeConfig(device="cpu", precision="float32", threads=1))
    report, settings = SimpleNamespace(opaque=nullcontext), SimpleNamespace(int8=False)
    context = SimpleNamespace(folder=tmp_path, report=report, settings=settings)
    monkeypatch.setattr(writing, "write_version", cut_short)
    write = partial(writing.write, measured=measured, shown=None, execution=None)
    with pytest.raises(ValueError, match="damaged"):
        write(cast(Any, job), learned, made, cast(Any, context))
