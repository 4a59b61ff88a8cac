"""A network whose weights are constants: batch normalisation folded, convolutions prepacked and fused with others.

Its backbone is traced once for all versions of one make. What torch.jit traces or freezes in place is never let go
again, weights included: each version loads the trace anew, which goes with it.
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
    except RuntimeError as error:  # what a tracer cannot follow
        log.info("%s is not frozen: %s", network.name, error)
        return None
    return buffer.getvalue()


def frozen(network: IncrementalNetwork, trace: bytes, *, pause_seconds: float = 0.0) -> Forward:
    """The logits of a network in evaluation mode, its backbone by the trace of another of its make.

    Three steps hold the interpreter, some 20 ms each for a ResNet-18; a pause after each lets others catch up.
    """
    device = next(network.parameters()).device
    with _silent(), torch.no_grad():
        # What is loaded was written by `blueprint`, in this process's own memory: no file, and nobody else's program.
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
    """torch.jit is to go one day, as it says each time; the network itself will still serve then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
