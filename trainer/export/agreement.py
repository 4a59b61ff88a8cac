"""Whether a graph computes what its network computes: compared by ONNX Runtime and torch on images."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.networks.manifest import OUTPUTS, PIXELS, PROBABILITIES, VALUES

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-4  # by which a probability may differ
RELATIVE_TOLERANCE = 1e-3  # of logits and features, relative to the largest; rounding stays far below
SIZES = (32, 1, 2, 3, 17)  # images of the minibatches, in turn: a graph can be right for one number of images alone
SECONDS = 10.0  # after which no further minibatch is compared, once each of the sizes was
_ERRORS_ONLY = 3  # of ONNX Runtime's log levels

Outputs = dict[str, NDArray[np.float32]]


class Disagreement(Exception):
    """The graph computes something else than the network."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a graph agrees with its network."""

    images: int  # compared, without the added ones
    largest_difference: float  # of a probability


def check(
    content: bytes, network: IncrementalNetwork, transform: EvaluationTransform, pixels: Tensor, *, threads: int
) -> Agreement:
    """Compare on uint8 pixels [images, channels, size, size]; raises `Disagreement`.

    ``network`` is on the CPU and in evaluation mode: a GPU may compute with fewer bits. Three images of extreme pixels
    come first. The images are repeated if they are too few to try each of the `SIZES`. A large network may be too slow
    for all of them: after `SECONDS` the images that were compared are enough. The most probable class must be the same,
    except for ties within the tolerance.
    """
    session = open_session(content, threads=threads)

    def run(part: Tensor) -> Outputs:
        return _run(session, {PIXELS: part.numpy()})

    found = compare(run, network, transform, pixels)
    mixed = _mixed(session, network, transform, _repeated(torch.cat([_extremes(transform), pixels]))[: SIZES[0]])
    return replace(found, largest_difference=max(found.largest_difference, mixed))


def compare(
    run: Callable[[Tensor], Outputs], network: IncrementalNetwork, transform: EvaluationTransform, pixels: Tensor
) -> Agreement:
    """Compare what ``run`` computes from uint8 pixels with the network, as `check` does; raises `Disagreement`."""
    extremes = _extremes(transform)
    plain = torch.cat([extremes, pixels])
    rows = _repeated(torch.arange(len(plain)))
    worst, start, sizes = 0.0, 0, cycle(SIZES)
    began = time.monotonic()
    while start < len(rows) and (start < sum(SIZES) or time.monotonic() - began < SECONDS):
        part = plain[rows[start : start + next(sizes)]]
        values = transform.normalise(part)
        worst = max(worst, _difference(run(part), _expected(network, values)))
        start += len(part)
    return Agreement(images=max(0, min(start, len(plain)) - len(extremes)), largest_difference=worst)


def open_session(content: bytes, *, threads: int) -> "InferenceSession":
    """A session for a graph, on the CPU.

    ONNX Runtime is imported here: it must not be in the process that training processes are forked from. Without the
    environment variable, its builds for Linux report every session to their makers, and they read it at the import.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _repeated(values: Tensor) -> Tensor:
    """The values, again and again if they are too few to try each of the `SIZES`."""
    return values[torch.arange(max(len(values), sum(SIZES))) % len(values)]


def _mixed(
    session: "InferenceSession", network: IncrementalNetwork, transform: EvaluationTransform, pixels: Tensor
) -> float:
    """The largest difference for a minibatch of pixels and of values, and for one of values alone."""
    half, values = len(pixels) // 2, pixels.float() / 255
    expected = _expected(network, transform.normalise(pixels))
    mixed = {PIXELS: pixels[:half].numpy(), VALUES: values[half:].numpy()}
    alone = {PIXELS: pixels[:0].numpy(), VALUES: values.numpy()}
    return max(_difference(_run(session, inputs), expected) for inputs in (mixed, alone))


def _run(session: "InferenceSession", inputs: dict[str, NDArray[Any]]) -> Outputs:
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), inputs), strict=True))


@torch.inference_mode()
def _expected(network: IncrementalNetwork, images: Tensor) -> Outputs:
    observed = network.observe(images)
    outputs = (observed.logits.float(), observed.features.float(), observed.logits.float().softmax(dim=1))
    return {name: output.numpy() for name, output in zip(OUTPUTS, outputs, strict=True)}


def _difference(found: Outputs, expected: Outputs) -> float:
    """The largest difference of a probability; raises `Disagreement` if an output differs by too much."""
    for name in OUTPUTS:
        if found[name].shape != expected[name].shape:
            raise Disagreement(f"its {name} have the shape {list(found[name].shape)}, not {list(expected[name].shape)}")
    differences = {name: float(np.abs(found[name] - expected[name]).max(initial=0.0)) for name in OUTPUTS}
    for name, difference in differences.items():
        allowed = TOLERANCE
        if name != PROBABILITIES:
            allowed = RELATIVE_TOLERANCE * float(np.abs(expected[name]).max(initial=0.0))
        if not difference <= allowed:  # also where one of the two is not a number
            raise Disagreement(f"its {name} differ by up to {difference:.2g}, and {allowed:.2g} is allowed")
    probabilities = expected[PROBABILITIES]
    rows = np.arange(len(probabilities))
    behind = probabilities.max(axis=1) - probabilities[rows, found[PROBABILITIES].argmax(axis=1)]
    if float(behind.max(initial=0.0)) > TOLERANCE:
        raise Disagreement("its most probable class is another one for some images")
    return differences[PROBABILITIES]


def _extremes(transform: EvaluationTransform) -> Tensor:
    """A black, a white and a striped image, uint8 [3, channels, size, size]."""
    size = transform.image_size
    stripes = torch.arange(transform.channels * size * size).remainder(2).mul(255)
    shape = (transform.channels, size, size)
    return torch.stack([torch.zeros(shape), torch.full(shape, 255.0), stripes.view(shape).float()]).to(torch.uint8)
