"""Folding batch normalisation, a fixed scale and shift in a network that only predicts, into the convolution before."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainer.networks.incremental import IncrementalNetwork

TOLERANCE = (
    1e-3  # of features after folding, relative to the largest feature: rounding stays far below, a mistake does not
)


def folded(network: IncrementalNetwork) -> IncrementalNetwork:
    """A copy in evaluation mode, without gradients, with batch normalisation folded into the convolutions before it.

    Modules keep their paths, so that a stage can still be observed. A forward pass finds which normalisation follows
    which convolution. If folding changes the features, the copy is returned without it.
    """
    plain = copy.deepcopy(network).eval().requires_grad_(False)
    device = next(plain.parameters()).device
    shape = (2, plain.channels, plain.image_size, plain.image_size)
    images = torch.linspace(-1, 1, 2 * shape[1] * shape[2] * shape[3], device=device).view(shape)
    with torch.no_grad():
        expected = plain.features(images)
        fused = copy.deepcopy(plain)
        for convolution, normalisation in _pairs(fused, images):
            layers: tuple[Any, Any] = fused.get_submodule(convolution), fused.get_submodule(normalisation)
            fused.set_submodule(convolution, fuse_conv_bn_eval(*layers))
            fused.set_submodule(normalisation, nn.Identity())
        difference = (fused.features(images) - expected).abs().max()
    return fused if bool(difference <= TOLERANCE * expected.abs().max()) else plain


def _pairs(network: IncrementalNetwork, images: Tensor) -> list[tuple[str, str]]:
    """Paths of each convolution and of the normalisation whose input is that convolution's output tensor."""
    made: list[tuple[Tensor, str]] = []  # kept alive, so that no later tensor gets the same identity
    pairs: list[tuple[str, str]] = []

    def convolved(path: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        made.append((output, path))

    def normalising(path: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((maker, path) for output, maker in made if output is inputs[0])

    handles = []
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(partial(convolved, path)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(partial(normalising, path)))
    network.features(images)
    for handle in handles:
        handle.remove()
    return pairs
