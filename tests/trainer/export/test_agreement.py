"""A graph that computes something else than its network is noticed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.trainer.export.material import network, pixels, transform
from trainer.export import agreement, graph
from trainer.export.agreement import TOLERANCE, Disagreement, check


def exported() -> onnx.ModelProto:
    return graph.export(network(), transform(), by_dynamo=False)


def changed(model: onnx.ModelProto, name: str, factor: float) -> bytes:
    """The graph with one of its weights multiplied."""
    weight = next(one for one in model.graph.initializer if one.name == name)
    weight.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(weight) * np.float32(factor)), name))
    content: bytes = model.SerializeToString()
    return content


def weights_of(model: onnx.ModelProto) -> list[str]:
    return [one.name for one in model.graph.initializer if np.prod(one.dims) > 3]


def test_a_graph_agrees_with_its_network():
    found = check(exported().SerializeToString(), network(), transform(), pixels(100), threads=1)
    assert found.images == 100
    assert 0 <= found.largest_difference < 1e-5


@pytest.mark.parametrize("images", [0, 1, 7])
def test_few_images_are_repeated_and_extreme_ones_added(images):
    found = check(exported().SerializeToString(), network(), transform(), pixels(images), threads=1)
    assert found.images == images


@pytest.mark.parametrize("place", [0, 10, -1])
def test_a_wrong_weight_is_a_disagreement(place):
    model = exported()
    content = changed(model, weights_of(model)[place], 1.5)
    with pytest.raises(Disagreement, match="differ by up to"):
        check(content, network(), transform(), pixels(20), threads=1)


def test_another_normalisation_is_a_disagreement():
    with pytest.raises(Disagreement):
        check(exported().SerializeToString(), network(), transform(deviation=0.3), pixels(20), threads=1)


def test_a_graph_of_other_classes_is_a_disagreement():
    with pytest.raises(Disagreement, match=r"logits have the shape \[32, 5\], not \[32, 7\]"):
        check(exported().SerializeToString(), network(tasks=(3, 4)), transform(), pixels(40), threads=1)


def test_weights_that_are_not_numbers_are_a_disagreement():
    model = exported()
    with pytest.raises(Disagreement, match="nan"):
        check(changed(model, weights_of(model)[0], float("nan")), network(), transform(), pixels(3), threads=1)


def rows(*probabilities: list[float]) -> dict[str, np.ndarray]:
    """Outputs of that many images."""
    found = np.array(probabilities, np.float32)
    return {"logits": np.log(found), "features": np.ones((len(found), 4), np.float32), "probabilities": found}


def test_a_tie_may_be_broken_otherwise():
    expected = rows([0.40002, 0.39998, 0.2])
    assert agreement._difference(rows([0.39998, 0.40002, 0.2]), expected) == pytest.approx(4e-5, abs=1e-6)


def test_another_class_is_a_disagreement_though_no_probability_differs_by_much():
    expected, found = rows([0.40008, 0.39992, 0.2]), rows([0.39999, 0.40001, 0.2])
    assert np.abs(expected["probabilities"] - found["probabilities"]).max() < TOLERANCE
    with pytest.raises(Disagreement, match="most probable class"):
        agreement._difference(found, expected)


def test_features_are_compared_too():
    expected, found = rows([0.6, 0.4]), rows([0.6, 0.4])
    found["features"] = found["features"] * np.float32(1.01)
    with pytest.raises(Disagreement, match=r"its features differ by up to 0\.01, and 0\.001 is allowed"):
        agreement._difference(found, expected)


def test_each_number_of_images_is_tried(monkeypatch):
    seen = []
    original = agreement._run

    def watched(session, shown):
        seen.append(shown)
        return original(session, shown)

    monkeypatch.setattr(agreement, "_run", watched)
    check(exported().SerializeToString(), network(), transform(), pixels(2), threads=1)
    assert [len(shown["pixels"]) for shown in seen] == [32, 1, 2, 3, 17, 16, 0]
    assert [len(shown["values"]) for shown in seen[-2:]] == [16, 32]


def test_a_slow_network_is_compared_on_fewer_images(monkeypatch):
    monkeypatch.setattr(agreement, "SECONDS", 0.0)
    found = check(exported().SerializeToString(), network(), transform(), pixels(256), threads=1)
    assert found.images == sum(agreement.SIZES) - 3  # without those added


QUIET = """
import os, sys
import torch
from tests.trainer.export.material import network, pixels, transform
from trainer.export import graph, agreement, write_executable
assert "onnxruntime" not in sys.modules, "importing trainer.export is not to import onnxruntime"
seen = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)
before = set(os.listdir("."))
def sockets():
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            pass
    return {link for link in links if link.startswith("socket:")}
inherited = sockets()
content = graph.export(network(), transform(), by_dynamo=False).SerializeToString()
session = agreement.open_session(content, threads=1)
session.run(None, {"pixels": pixels(2).numpy()})
assert seen[:1] == ["1"], seen
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert sockets() == inherited, sockets()
assert not opened, opened
assert set(os.listdir(".")) == before, os.listdir(".")
"""


@pytest.mark.parametrize("telemetry", [None, "0"])
def test_onnxruntime_reports_to_nobody(telemetry, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path[1:]]), "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    if telemetry is not None:
        environment["ORT_DISABLE_TELEMETRY"] = telemetry
    done = subprocess.run(
        [sys.executable, "-c", QUIET], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
