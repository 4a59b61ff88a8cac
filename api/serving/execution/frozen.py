"""A network whose weights are constants: batch normalisation folded, convolutions prepacked and fused with others.

Its backbone is traced once for all versions of one make. torch.jit never frees a module that it traces or freezes in
place, nor its weights. So each version loads its own copy of the trace, which is freed with the version.
"""

import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainer.networks import IncrementalNetwork

Forward = Callable[[Tensor], Tensor]  # normalised images [n, channels, size, size] to logits [n, classes]

log = logging.getLogger(__name__)


def blueprint(network: IncrementalNetwork, sample: Tensor) -> bytes | None:
    """The backbone's trace without its weights; None where it cannot be traced."""
    try:
        with _silent():
            traced = torch.jit.trace(network.backbone, sample, check_trace=False)  # type: ignore[no-untyped-call]
        for path, weight in list(_weights(traced)):
            _put(traced, path, torch.zeros((), dtype=weight.dtype, device=weight.device).expand(weight.shape))
        buffer = io.BytesIO()
        with _silent():
            torch.jit.save(traced, buffer)
    except RuntimeError as error:  # the tracer cannot follow the network
        log.info("%s is not frozen: %s", network.name, error)
        return None
    return buffer.getvalue()


def frozen(network: IncrementalNetwork, trace: bytes, *, pause_seconds: float = 0.0) -> Forward:
    """A function for the logits of a network in evaluation mode; the trace may be of another network of its make.

    Three steps hold the interpreter lock, some 20 ms each for a ResNet-18. A pause after each lets requests be served.
    """
    device = next(network.parameters()).device
    with _silent(), torch.no_grad():
        # Safe to load: the trace is no file, `blueprint` has written it in this process's memory.
        backbone = torch.jit.load(io.BytesIO(trace), map_location=device)  # type: ignore[no-untyped-call]
        for path, weight in _weights(network.backbone):
            _put(backbone, path, weight.detach())
        time.sleep(pause_seconds)
        constant = torch.jit.freeze(backbone.eval())
        time.sleep(pause_seconds)
        features = torch.jit.optimize_for_inference(constant)
        time.sleep(pause_seconds)

    def forward(images: Tensor) -> Tensor:
        return network.logits(features(images))

    return forward


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _put(module: nn.Module, path: str, weight: Tensor) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        module = getattr(module, parent)
    setattr(module, name, weight)


@contextmanager
def _silent() -> Iterator[None]:
    """Ignore the warnings that torch.jit is deprecated; without it, the network itself would still serve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
