"""A graph in int8 answers as the one in float32 does; and one that does not is not offered."""

import copy
import logging
import os
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from tests.trainer.export.trained import Trained, minibatches, trained
from trainer.export import Comparison, compare, graph, quantise
from trainer.export.agreement import open_session
from trainer.export.paired import Paired


def quantised(of: Trained, folder) -> bytes:
    """The graph in int8, calibrated by the training images."""
    return quantise(of.content, of.learned.minibatches(16), scratch=folder, threads=1)


def probabilities(content: bytes, pixels: torch.Tensor) -> np.ndarray:
    """Computed in minibatches, as serving does."""
    session = open_session(content, threads=1)
    return np.concatenate([session.run(["probabilities"], {"pixels": part.numpy()})[0] for part in pixels.split(32)])


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_it_agrees_in_the_most_probable_class(tmp_path, head):
    of = trained(head)
    expected = probabilities(of.content, of.measured.pixels)
    found = probabilities(quantised(of, tmp_path), of.measured.pixels)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.97
    assert list(tmp_path.iterdir()) == []


def test_it_has_the_same_inputs_and_outputs_and_is_a_third_of_the_size(tmp_path):
    whole, made = trained().content, quantised(trained(), tmp_path)
    sessions = [open_session(content, threads=1) for content in (whole, made)]
    named = [
        [(one.name, one.type, one.shape) for one in (*session.get_inputs(), *session.get_outputs())]
        for session in sessions
    ]
    assert named[0] == named[1]
    assert len(made) < len(whole) / 3
    session, pixels = sessions[1], trained().measured.pixels[:6]
    expected = session.run(None, {"pixels": pixels.numpy()})
    mixed = session.run(None, {"pixels": pixels[:2].numpy(), "values": (pixels[2:].float() / 255).numpy()})
    for one, other in zip(expected, mixed, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_the_first_layer_and_the_head_keep_their_weights(tmp_path):
    model = onnx.load_from_string(quantised(trained(), tmp_path))
    of_type = {one.name: one.data_type for one in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in {"Conv", "Gemm"}]
    assert of_type[layers[0].input[1]] == onnx.TensorProto.FLOAT
    assert of_type[layers[-1].input[1]] == onnx.TensorProto.FLOAT
    assert all(layer.input[1] not in of_type for layer in layers[1:-1])  # they read what is converted
    weights = [
        numpy_helper.to_array(one)
        for one in model.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    ]
    assert len(weights) == len(layers) - 2
    assert max(int(np.abs(one.astype(int)).max()) for one in weights) <= 64  # seven bits


def test_it_says_what_it_is_and_nothing_of_the_machine(tmp_path):
    whole = onnx.load_from_string(trained().content)
    graph.describe(whole, {"exporter": "trace"})
    content = quantise(whole.SerializeToString(), trained().learned.minibatches(16), scratch=tmp_path, threads=1)
    described = open_session(content, threads=1).get_modelmeta().custom_metadata_map
    assert described == {"exporter": "trace", "precision": "int8"}
    assert str(tmp_path).encode() not in content
    assert not onnx.load_from_string(content).graph.value_info


def test_it_uses_the_threads_it_may_and_leaves_the_process_as_it_was(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ORT_INTRA_OP_NUM_THREADS", "7")
    of, opened, root = trained(), [], logging.getLogger()
    before = (list(root.handlers), root.level)
    plain = onnxruntime.InferenceSession

    def watched(*arguments, **options):
        logging.warning("what the quantiser says")  # noqa: LOG015 - it says it to the root logger
        opened.append(os.environ["ORT_INTRA_OP_NUM_THREADS"])
        return plain(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    quantise(of.content, of.learned.minibatches(16), scratch=tmp_path, threads=1)
    assert opened
    assert set(opened) == {"1"}
    assert os.environ["ORT_INTRA_OP_NUM_THREADS"] == "7"
    assert (root.handlers, root.level) == before
    assert "what the quantiser says" not in caplog.text


def test_without_training_images_there_is_none(tmp_path):
    with pytest.raises(ValueError, match="No data is collected"):
        quantise(trained().content, [], scratch=tmp_path, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_as_accurate_is_offered(tmp_path):
    of = trained()
    found = compare(of.content, quantised(of, tmp_path), minibatches(of.measured), threads=1)
    record = found.to_json()
    assert found.reason is None
    assert record["offered"] is True
    assert record["images"] == len(of.measured)
    assert record["drop_at_most"] <= record["allowed"] == 0.005
    assert record["right"]["float32"] > 0.9 * len(of.measured)
    assert record["seconds"].keys() == {"1", "16"}
    assert all(seconds > 0 for pair in record["seconds"].values() for seconds in pair.values())
    assert record["bytes"]["int8"] < record["bytes"]["float32"] / 3


def ruined(of: Trained) -> Trained:
    """Weights of a channel that is always zero are huge, so those of the others are rounded to zero."""
    network: Any = copy.deepcopy(of.network)
    with torch.no_grad():
        for block in (module for module in network.modules() if hasattr(module, "conv2")):
            block.bn1.weight[0], block.bn1.bias[0] = 0.0, -1.0
            block.conv2.weight[:, 0] = 1e6
    return replace(of, network=network)


def test_what_quantisation_ruins_is_not_offered(tmp_path):
    of = ruined(trained())
    found = compare(of.content, quantised(of, tmp_path), minibatches(of.measured), threads=1)
    assert found.paired.both_right + found.paired.only_first > 0.5 * len(of.measured)  # in float32 it is none the worse
    assert found.paired.drop > 0.1
    assert "are right by float32 alone" in str(found.reason)
    assert found.to_json()["offered"] is False


def test_few_images_show_nothing(tmp_path):
    of = trained()
    content = quantised(of, tmp_path)
    few = compare(of.content, content, minibatches(of.measured)[:3], threads=1)
    assert few.paired.images == 48
    assert str(few.reason).startswith("not shown: 0 of 48 images are right by float32 alone and 0 by int8 alone")
    none = compare(of.content, content, [], threads=1)
    assert none.reason == "not shown: there are no evaluation images"
    assert none.to_json()["seconds"] == {}


def test_a_comparison_ends_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.export.comparison.SECONDS", 0.0)
    of = trained()
    assert compare(of.content, of.content, minibatches(of.measured), threads=1).paired.images == 16


def test_values_that_are_no_numbers_are_not_offered():
    found = Comparison(Paired(2000, 2000, 0, 0), finite=False, seconds={}, sizes=(3, 1), threads=1)
    assert found.reason == "it computes values that are no numbers"
