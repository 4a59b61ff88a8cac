"""The graph of a network in int8: weights of seven bits by channel, activations of eight; docs/decisions/0026."""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

from trainer.export import graph
from trainer.networks.manifest import PIXELS

# Those after which ONNX Runtime computes in int8. Others are computed in float32, between conversions.
_OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "Concat"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape"),
)
_WITH_WEIGHTS = {"Conv", "Gemm", "MatMul"}
_ERRORS_ONLY, _WARNINGS = 3, 2  # of ONNX Runtime's log levels; the second is its own default
_THREADS = "ORT_INTRA_OP_NUM_THREADS"


def quantise(content: bytes, calibration: Iterable[Tensor], *, scratch: Path, threads: int) -> bytes:
    """The graph of ``content``, which `write_executable` wrote, in int8; it has the same inputs and outputs.

    ``calibration`` are minibatches of training images, uint8 [images, channels, size, size]. The ranges of the
    activations are the smallest and the largest values that these images cause. ``scratch`` is a folder for files that
    are deleted at the end. The first layer and the head stay in float32. Raises what ONNX Runtime's quantiser raises
    for a graph that it cannot convert, which can be anything, and ValueError without images.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load_from_string(content)
    described = {entry.key: entry.value for entry in model.metadata_props}
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{place}"  # nodes are left out by their names
    with tempfile.TemporaryDirectory(dir=scratch) as name, _surroundings(Path(name), threads):
        target = Path(name) / "quantised.onnx"
        quantize_static(
            model,
            target,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=_left_out(model),
            per_channel=True,
            # Two products of unsigned and of seven-bit numbers fit into the 16 bits of processors without VNNI.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        made = onnx.load(target)
    del made.graph.value_info[:]
    graph.describe(made, described | {"precision": "int8"})
    onnx.checker.check_model(made)
    written: bytes = made.SerializeToString()
    return written


def _left_out(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay in float32: up to the first layer, and from the head on."""
    nodes = model.graph.node
    layers = [place for place, node in enumerate(nodes) if node.op_type in _WITH_WEIGHTS]
    if len(layers) < 3:
        raise ValueError("the graph has no layer between the first one and the head")
    return [node.name for place, node in enumerate(nodes) if place <= layers[0] or place >= layers[-1]]


class _Reader:
    """Images in the form in which the quantiser asks for them."""

    def __init__(self, minibatches: Iterable[Tensor]) -> None:
        self._minibatches = iter(minibatches)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs of the graph, None after the last."""
        pixels = next(self._minibatches, None)
        return None if pixels is None else {PIXELS: pixels.numpy()}


@contextmanager
def _surroundings(folder: Path, threads: int) -> Iterator[None]:
    """Have the quantiser write its files into a folder, use some threads, and log errors only.

    It has no arguments for these. It opens its own session, on all processors, and puts its files where `tempfile`
    does. Its remarks to developers go to the root logger, which it would give a handler if there was none.
    """
    import onnxruntime

    root, handler = logging.getLogger(), logging.NullHandler()
    level = root.level
    place, number = tempfile.tempdir, os.environ.get(_THREADS)
    tempfile.tempdir, os.environ[_THREADS] = str(folder), str(threads)
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        onnxruntime.set_default_logger_severity(_WARNINGS)
        tempfile.tempdir = place
        os.environ.pop(_THREADS)
        if number is not None:
            os.environ[_THREADS] = number
