"""Which of a version's graphs is fetched and computed, by the setting and the device."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from api.serving.execution import CPU, Device, Runtime
from api.serving.execution.sessions import Session
from storage.settings import Settings
from tests.api.serving.test_engine import scaled, some_pixels, written
from tests.api.worlds import Json, World, network_onnx, picture, running
from trainer.export import quantise
from trainer.networks import EvaluationTransform, IncrementalNetwork

BOTH = {"version.json", "weights.safetensors", "network.onnx", "network.int8.onnx"}
GPU = Device("cuda", 0)


def of_white(network: IncrementalNetwork, transform: EvaluationTransform) -> bytes:
    """Another graph than network.onnx, with answers that are told from its answers."""
    other = EvaluationTransform(transform.image_size, transform.channels, (0.1, 0.9, 0.1), (0.1, 0.1, 0.1))
    return network_onnx(network, other)


@pytest.mark.parametrize(
    ("precision", "files", "device", "expected"),
    [
        ("float32", BOTH, CPU, "network.onnx"),
        ("int8", BOTH, CPU, "network.int8.onnx"),
        ("int8", BOTH - {"network.int8.onnx"}, CPU, "network.onnx"),
        ("int8", {"version.json", "weights.safetensors"}, CPU, None),
        ("float32", BOTH, GPU, "network.onnx"),
        ("int8", BOTH, GPU, "network.onnx"),
    ],
)
def test_the_graph_of_a_version_on_a_device(monkeypatch, precision, files, device, expected):
    monkeypatch.setattr("api.serving.execution.sessions.gpus", lambda: 1)
    assert Runtime(1, precision=precision).graph_of(files, device) == expected


def test_a_gpu_that_onnx_runtime_cannot_use_takes_torch(monkeypatch):
    monkeypatch.setattr("api.serving.execution.sessions.gpus", lambda: 0)
    assert Runtime(1, precision="int8").graph_of(BOTH, GPU) is None


def test_a_real_graph_in_int8_answers_nearly_as_the_one_in_float32(tmp_path: Path) -> None:
    version, scratch = tmp_path / "version", tmp_path / "scratch"
    written(version)
    scratch.mkdir()
    pixels = some_pixels(40)
    minibatches = torch.from_numpy(pixels).split(8)
    content = quantise((version / "network.onnx").read_bytes(), minibatches, scratch=scratch, threads=1)
    (version / "network.int8.onnx").write_bytes(content)
    found = {}
    for precision in ("float32", "int8"):
        execution = Runtime(1, precision=precision).open(version, CPU)
        assert isinstance(execution, Session)
        found[precision] = execution.probabilities([pixels, scaled(pixels[:3])])
        assert np.allclose(found[precision][0][:3], found[precision][1], atol=1e-5)
    difference = np.abs(found["float32"][0] - found["int8"][0]).max()
    assert 0 < difference < 0.2


def asked(world: World, name: str, **query: str | int) -> Json:
    """The answer for a picture, without what differs between any two answers."""
    answer = world.http.post(f"/v1/models/{name}/predictions", params=query, content=picture(1))
    assert answer.status_code == 200, answer.text
    return {key: value for key, value in answer.json().items() if key in {"model", "version", "predictions"}}


def test_the_setting_chooses_and_only_what_is_served_is_fetched(
    settings_for: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, fetched = {}, set[str]()
    settings = settings_for(tmp_path, serving_devices="cpu")
    with running(settings) as world:
        name, plain = world.model(), world.model()
        for model, int8 in ((name, of_white), (plain, None)):
            claim = world.claim(world.increment(model, "cat", "dog")["id"])
            world.publish(claim, ["cat", "dog"], int8=int8)
        files = world.http.get(f"/v1/models/{name}/versions/1").json()["files"]
        assert files.keys() == BOTH
        answers["float32"], answers["plain"] = asked(world, name), asked(world, plain)
    store = type(world.blobs)
    original = store.fetch

    def watched(self, sha256, target):
        fetched.add(sha256)
        return original(self, sha256, target)

    monkeypatch.setattr(store, "fetch", watched)
    with running(settings.model_copy(update={"serving_precision": "int8"})) as world:
        answers["int8"] = asked(world, name)
        assert fetched >= {files[one]["sha256"] for one in ("version.json", "network.int8.onnx")}
        assert not fetched & {files[one]["sha256"] for one in ("network.onnx", "weights.safetensors")}
        assert asked(world, plain) == answers["plain"]  # a version without the file is served as before
    assert answers["float32"].keys() == answers["int8"].keys()
    assert answers["float32"] != answers["int8"]
