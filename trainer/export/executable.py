"""The file ``network.onnx`` of a version: written, and compared with the network before anyone may use it."""

import copy
from importlib.metadata import version as release_of
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from trainer.export import agreement, graph
from trainer.export.agreement import Disagreement
from trainer.networks import EvaluationTransform, IncrementalNetwork

MOST_BYTES = 2**31 - 2**26  # of the weights: a graph is one Protocol Buffers message, which ends below 2 GiB


class NotExportable(Exception):
    """No exporter can write this network."""


def write_executable(
    path: Path, network: IncrementalNetwork, transform: EvaluationTransform, *, pixels: Tensor
) -> dict[str, Any]:
    """Write the graph of a network to ``path``, once it agrees with the network on ``pixels``.

    ``pixels`` are uint8 [images, channels, size, size]. The tracing exporter is tried first: it takes a tenth of the
    time of the other one (docs/decisions/0024). Returns what is to be recorded: the opset, the exporter, the number of
    images compared and the largest difference of a probability. Raises `NotExportable`, and `Disagreement` if what
    could be exported computes something else. The network is left as it is, on its device.
    """
    if (needed := _bytes(network)) > MOST_BYTES:
        raise NotExportable(f"its weights take {needed / 2**30:.1f} GiB, and a graph has at most 2 GiB")
    if network.training or next(network.parameters()).device.type != "cpu":
        network = copy.deepcopy(network).cpu().eval()
    reasons: list[Exception] = []
    for by_dynamo in (False, True):
        name = "dynamo" if by_dynamo else "trace"
        try:
            content = _serialised(graph.export(network, transform, by_dynamo=by_dynamo), exporter=name)
            found = agreement.check(content, network, transform, pixels, threads=torch.get_num_threads())
        except Exception as error:  # noqa: BLE001 - exporters raise almost anything; the next one is tried
            reasons.append(error)
            continue
        path.write_bytes(content)
        return {
            "opset": graph.OPSET,
            "exporter": name,
            "images": found.images,
            "largest_difference": found.largest_difference,
        }
    for reason in reasons:
        if isinstance(reason, Disagreement):
            raise reason
    raise NotExportable(headline(reasons[-1])) from reasons[-1]


def _serialised(model: onnx.ModelProto, *, exporter: str) -> bytes:
    """The graph with its own description, checked as a graph; raises `onnx.checker.ValidationError`."""
    graph.describe(
        model,
        {"exporter": exporter, "torch": torch.__version__, "accrete": release_of("accrete")},
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _bytes(network: IncrementalNetwork) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def headline(error: Exception) -> str:
    """The first line of an error's text, shortened, or its type if it has none."""
    return str(error).partition("\n")[0][:300] or type(error).__name__
