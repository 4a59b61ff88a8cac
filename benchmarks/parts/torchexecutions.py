"""A version computed by torch, in the two ways that are fastest on a processor: eager channels-last, and frozen.

Both are functions of uint8 pixels [n, channels, size, size], and give float32 probabilities [n, classes].
"""

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.networks import LoadedVersion

Compute = Callable[[Tensor], Tensor]


def eager(version: LoadedVersion) -> Compute:
    """The network as it is, with weights and images channels-last in memory."""
    network = copy.deepcopy(version.network).eval().requires_grad_(False)
    return _computing(version, network.to(memory_format=torch.channels_last))


def frozen(version: LoadedVersion) -> Compute:
    """The network traced by torch.jit, its weights constants: normalisation folded, convolutions fused with others."""
    network = copy.deepcopy(version.network).eval().requires_grad_(False)
    transform = version.transform
    sample = torch.rand(2, transform.channels, transform.image_size, transform.image_size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(network, sample, check_trace=False)  # type: ignore[no-untyped-call]
        forward = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return _computing(version, forward)


def _computing(version: LoadedVersion, forward: Compute) -> Compute:
    @torch.inference_mode()
    def compute(pixels: Tensor) -> Tensor:
        images = version.transform.normalise(pixels).contiguous(memory_format=torch.channels_last)
        return forward(images).softmax(dim=1)

    return compute
