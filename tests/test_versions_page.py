"""docs/versions.md describes the files of a version as they are written."""

import json
import re
from pathlib import Path

import onnx
import pytest

from trainer.export.graph import OPSET, export
from trainer.networks import EvaluationTransform, build, write_version

PAGE = (Path(__file__).parents[1] / "docs" / "versions.md").read_text(encoding="utf-8")
TRANSFORM = EvaluationTransform(image_size=8, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
TYPES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}
NAMED = re.findall(r"^\| (input|output)[^|]*\| `(\w+)` \| (\w+) `\[([^\]]+)\]` \|", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def network():
    return build("resnet32", channels=3, image_size=8, task_sizes=[2, 3]).eval()


def test_the_graph_has_the_inputs_and_outputs_of_the_page(network):
    graph = export(network, TRANSFORM, by_dynamo=False).graph
    found = [
        (kind, one.name, TYPES[one.type.tensor_type.elem_type], one.type.tensor_type.shape.dim[0].dim_param)
        for kind, several in (("input", graph.input), ("output", graph.output))
        for one in several
    ]
    assert [(kind, name, dtype, shape.split(", ")[0]) for kind, name, dtype, shape in NAMED] == found


def test_the_graph_has_the_opset_of_the_page(network):
    model = export(network, TRANSFORM, by_dynamo=False)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert f"The opset is {OPSET}, with no operators but ONNX's own." in PAGE


def test_every_field_that_a_reader_needs_is_on_the_page(network, tmp_path):
    write_version(tmp_path, network, transform=TRANSFORM, manifest={"tasks": [["a", "b"], ["c", "d", "e"]]})
    fields = PAGE.partition("## version.json")[2]
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+)\|", fields, re.MULTILINE))))
    assert json.loads((tmp_path / "version.json").read_text()).keys() <= listed
