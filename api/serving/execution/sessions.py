"""A version computed by ONNX Runtime, from its file ``network.onnx``."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from api.serving.execution import memory
from trainer.networks.manifest import PIXELS, PROBABILITIES, VALUES

# Read when the package is imported; without it, each session is reported to the package's makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

# [n, channels, size, size]: pixels as decoded, or values in 0 … 1
Images: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
GPU_PROVIDER = "CUDAExecutionProvider"
SPIN_MICROSECONDS = "100"  # measured: docs/benchmarks.md, Spinning
ERRORS_ONLY = 3  # of ONNX Runtime's log levels


class Session:
    """One version on one device. Several threads may compute at the same time: they share its weights."""

    def __init__(self, path: Path, *, gpu: int | None, threads: int) -> None:
        """Load a graph that `trainer.export` wrote, onto a GPU or, with None, the processor.

        ``threads`` compute one minibatch on the processor. The file may be deleted afterwards. Raises ValueError for a
        graph with other inputs, and what ONNX Runtime raises for one that it cannot load.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A thread that spins for longer takes the processor from decoding, from answering and from training. One that
        # sleeps at once has to be woken for every layer.
        options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
        # The arena never shrinks, and is not faster than the allocator of the system (docs/decisions/0025).
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = ERRORS_ONLY
        providers: list[Any] = ["CPUExecutionProvider"] if gpu is None else [(GPU_PROVIDER, {"device_id": gpu})]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        if gpu is not None and GPU_PROVIDER not in self._session.get_providers():
            raise ValueError(f"ONNX Runtime cannot use GPU {gpu}: its log says why")
        shapes = {given.name: given.shape for given in self._session.get_inputs()}
        if PIXELS not in shapes:
            raise ValueError(f"its graph reads {sorted(shapes)}, not {PIXELS}: it was not written for this service")
        self._nothing = np.empty((0, *shapes[PIXELS][1:]), np.uint8)
        memory.note_freed()  # what the graph was read into
        weakref.finalize(self, memory.note_freed)

    def probabilities(self, images: Sequence[Images]) -> list[NDArray[np.float32]]:
        """Probabilities [n, classes] of each array of images, all computed together."""
        is_scaled = [one.dtype == np.float32 for one in images]
        if not any(is_scaled):
            return _split(self._run({PIXELS: _joined(images)}), images)
        order = sorted(range(len(images)), key=is_scaled.__getitem__)  # the graph gives those of pixels first
        pixels = [images[place] for place in order if not is_scaled[place]]
        values = [images[place] for place in order if is_scaled[place]]
        together = self._run({PIXELS: _joined(pixels) if pixels else self._nothing, VALUES: _joined(values)})
        found = dict(zip(order, _split(together, [images[place] for place in order]), strict=True))
        return [found[place] for place in range(len(images))]

    def _run(self, feed: dict[str, Images]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = self._session.run([PROBABILITIES], feed)[0]
        return probabilities


def gpus() -> int:
    """Number of GPUs that this installation of ONNX Runtime can use; 0 without onnxruntime-gpu."""
    if GPU_PROVIDER not in onnxruntime.get_available_providers():
        return 0
    return sum(device.ep_name == GPU_PROVIDER for device in onnxruntime.get_ep_devices())


def _joined(images: Sequence[Images]) -> Images:
    return cast(Images, np.ascontiguousarray(images[0]) if len(images) == 1 else np.concatenate(images))


def _split(rows: NDArray[np.float32], images: Sequence[Images]) -> list[NDArray[np.float32]]:
    return [rows] if len(images) == 1 else np.split(rows, np.cumsum([len(one) for one in images])[:-1])
