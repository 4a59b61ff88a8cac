"""The ONNX graph of a network: from decoded pixels to logits, features and probabilities."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from trainer.networks import EvaluationTransform, IncrementalNetwork, folded
from trainer.networks.manifest import OUTPUTS, PIXELS, VALUES

OPSET = 18  # what torch's exporters write without converting
_SCALED, _WHITE = "scaled", 255.0
_EXAMPLES = 2  # images; an exporter takes the number 1 for a constant (pytorch#157621)


def export(network: IncrementalNetwork, transform: EvaluationTransform, *, by_dynamo: bool) -> onnx.ModelProto:
    """The graph of a network, with the normalisation of its images inside; the network is left as it is.

    ``by_dynamo`` chooses torch's newer exporter. Raises whatever the exporter raises for a network that it cannot
    export.
    """
    core = Core(network, transform).eval()
    size = transform.image_size
    # Values that are neither all equal nor symmetric: an exporter may compute with them.
    images = torch.linspace(0, 1, _EXAMPLES * transform.channels * size * size)
    example = (images.view(_EXAMPLES, transform.channels, size, size),)
    with quiet():
        model = _by_dynamo(core, example) if by_dynamo else _by_trace(core, example)
    _strip(model)
    _prepend_inputs(model, channels=transform.channels, size=size)
    return model


def describe(model: onnx.ModelProto, entries: Mapping[str, str]) -> None:
    """Write entries into a graph's own metadata, in place."""
    helper.set_model_props(model, dict(entries))


class Core(nn.Module):
    """Pixels in 0 … 1 to the outputs. The heads of all tasks are one layer, so many tasks cost no more than one."""

    mean: Tensor
    std: Tensor
    rows: Tensor  # [rows, dim]
    bias: Tensor | None

    def __init__(self, network: IncrementalNetwork, transform: EvaluationTransform) -> None:
        super().__init__()
        self.network = folded(network).cpu()
        rows, bias = self.network.classifier_rows()
        self.register_buffer("mean", torch.tensor(transform.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(transform.std).view(1, -1, 1, 1))
        self.register_buffer("rows", rows)
        self.register_buffer("bias", bias)

    def forward(self, scaled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, features and probabilities of pixels in 0 … 1, [images, channels, size, size]."""
        features = self.network.features((scaled - self.mean) / self.std)
        scores = nn.functional.linear(self.network.classified(features), self.rows, self.bias)
        logits = self.network.of_classes(scores)
        return logits, features, logits.softmax(dim=1)


def _by_trace(core: nn.Module, example: tuple[Tensor]) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with torch.inference_mode(), attention_in_parts():
        torch.onnx.export(
            core,
            example,
            buffer,  # type: ignore[arg-type]  # where it traces, any binary file
            dynamo=False,
            opset_version=OPSET,
            input_names=[_SCALED],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "images"} for name in (_SCALED, *OUTPUTS)},
        )
    return onnx.load_from_string(buffer.getvalue())


def _by_dynamo(core: nn.Module, example: tuple[Tensor]) -> onnx.ModelProto:
    buffer = io.BytesIO()
    torch.onnx.export(
        core,
        example,
        buffer,  # type: ignore[arg-type]
        dynamo=True,
        opset_version=OPSET,
        input_names=[_SCALED],
        output_names=list(OUTPUTS),
        dynamic_shapes={_SCALED: {0: torch.export.Dim("images")}},
        external_data=False,
        verbose=False,
    )
    return onnx.load_from_string(buffer.getvalue())


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its own machine, such as paths of source files, and inferred shapes."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    for noted in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *model.functions):
        del noted.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    del graph.value_info[:]


def _prepend_inputs(model: onnx.ModelProto, *, channels: int, size: int) -> None:
    """Let the graph read decoded pixels, and beside them values that were scaled before; in place.

    The second input has no images by default. So a minibatch may hold images of both kinds, and a caller with pixels
    need not know of it.
    """
    graph = model.graph
    shape = [channels, size, size]
    del graph.input[:]
    graph.input.extend(
        [
            helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["images", *shape]),
            helper.make_tensor_value_info(VALUES, TensorProto.FLOAT, ["more_images", *shape]),
        ]
    )
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(_WHITE, np.float32), "white"),
            numpy_helper.from_array(np.empty((0, *shape), np.float32), VALUES),
        ]
    )
    first = [
        helper.make_node("Cast", [PIXELS], ["pixels_as_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels_as_float", "white"], ["pixels_scaled"]),
        helper.make_node("Concat", ["pixels_scaled", VALUES], [_SCALED], axis=0),
    ]
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *others])
    for output in graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "all_images"


@contextmanager
def attention_in_parts() -> Iterator[None]:
    """Have torch compute attention as it does in training, which can be traced; not as one operator of its own."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' remarks to developers; what they write is checked instead."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    # The tracing exporter takes this function for its answer, and so prints every graph that it cannot export.
    asked = torch._C._jit_is_onnx_log_enabled
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    torch._C._jit_is_onnx_log_enabled = False  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_is_onnx_log_enabled = asked
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
