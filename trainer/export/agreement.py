"""Whether a graph computes what its network computes: compared by ONNX Runtime and torch on images."""

import os
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.export.graph import PIXELS, VALUES
from trainer.networks import EvaluationTransform, IncrementalNetwork

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import; without it, every session is reported to its makers
import onnxruntime  # noqa: E402

TOLERANCE = 1e-4  # by which a probability may differ
SIZES = (32, 1, 2, 3, 17)  # images of the minibatches, in turn: a graph can be right for one number of images alone
ERRORS_ONLY = 3  # of ONNX Runtime's log levels


class Disagreement(Exception):
    """The graph computes something else than the network."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a graph agrees with its network."""

    images: int  # compared
    largest_difference: float  # of a probability


def check(
    content: bytes, network: IncrementalNetwork, transform: EvaluationTransform, pixels: Tensor, *, threads: int
) -> Agreement:
    """Compare on uint8 pixels [images, channels, size, size]; raises `Disagreement`.

    Every image is compared once. Images of extreme pixels are added, and the first images again, so that each of the
    `SIZES` is tried. The most probable class must be the same, except for ties within the tolerance.
    """
    session = _session(content, threads)
    device = next(network.parameters()).device
    plain = torch.cat([pixels, _extremes(transform)])
    images = plain[torch.arange(max(len(plain), sum(SIZES))) % len(plain)]
    worst, start, sizes = 0.0, 0, cycle(SIZES)
    while start < len(images):
        part = images[start : start + next(sizes)].contiguous()
        expected = _expected(network, transform, part.to(device))
        found = session.run(["probabilities"], {PIXELS: part.numpy()})[0]
        worst = max(worst, _difference(found, expected))
        start += len(part)
    half = len(part) // 2  # the same images, some of them scaled before
    mixed = {PIXELS: part[:half].numpy(), VALUES: (part[half:].float() / 255).numpy()}
    worst = max(worst, _difference(session.run(["probabilities"], mixed)[0], expected))
    return Agreement(images=len(pixels), largest_difference=worst)


def _session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def _expected(network: IncrementalNetwork, transform: EvaluationTransform, pixels: Tensor) -> NDArray[np.float32]:
    probabilities: NDArray[np.float32] = network(transform.normalise(pixels)).float().softmax(dim=1).cpu().numpy()
    return probabilities


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of a probability; raises `Disagreement` if it is too large or a class is told apart."""
    if found.shape != expected.shape:
        raise Disagreement(f"its probabilities have the shape {list(found.shape)}, not {list(expected.shape)}")
    difference = float(np.abs(found - expected).max(initial=0.0))
    if not difference <= TOLERANCE:
        raise Disagreement(f"its probabilities differ by up to {difference:.2g}, and {TOLERANCE:g} is allowed")
    rows = np.arange(len(found))
    behind = expected.max(axis=1) - expected[rows, found.argmax(axis=1)]
    if len(behind) and float(behind.max()) > TOLERANCE:
        raise Disagreement("its most probable class is another one for some images")
    return difference


def _extremes(transform: EvaluationTransform) -> Tensor:
    """A black, a white and a striped image, uint8 [3, channels, size, size]."""
    size = transform.image_size
    stripes = torch.arange(transform.channels * size * size).remainder(2).mul(255)
    shape = (transform.channels, size, size)
    return torch.stack([torch.zeros(shape), torch.full(shape, 255.0), stripes.view(shape).float()]).to(torch.uint8)
