"""What a minibatch takes by each execution of a network: `python -m benchmarks.executions`.

Torch eager (channels-last) and frozen by torch.jit, ONNX Runtime without and with its arena, and OpenVINO where it is
installed: here, or in the environment that PEERS names. All compute probabilities from the same uint8 pixels with the
same untrained weights (100 classes), in float32, in turns in one process, on one thread and on all. Threads that wait
sleep at once, or they would take the processors from the next in turn. Milliseconds an image, medians.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.parts.machine import described
from benchmarks.parts.onnxsessions import session
from benchmarks.parts.serving import MODELS, write
from benchmarks.parts.torchexecutions import eager, frozen
from benchmarks.parts.turns import Turns
from trainer.networks import LoadedVersion, load_version
from trainer.networks.manifest import EXECUTABLE

MINIBATCHES = (1, 4, 16, 32)
WARM_ROUNDS = 3
CPU = torch.device("cpu")
LEAST_IMAGES = 16  # of a turn, so that each finds its own weights in the caches but for the first time
TOLERANCE = 1e-4  # of a probability
PEERS = Path(os.environ.get("PEERS", ".venv-peers"))
EAGER, FROZEN, RUNTIME, ARENA, OPENVINO = "eager", "frozen", "ONNX Runtime", "with arena", "OpenVINO"

Pixels = NDArray[np.uint8]  # [n, channels, size, size]
Compute = Callable[[Pixels], NDArray[np.float32]]  # to probabilities [n, classes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--networks", nargs="+", default=list(MODELS), choices=list(MODELS))
    chosen = parser.parse_args()
    with_openvino = find_openvino()
    print(f"{described()}\n")
    names = [EAGER, FROZEN, RUNTIME, ARENA, *([OPENVINO] if with_openvino else [])]
    ratios = ["to torch's better", *(["to OpenVINO"] if with_openvino else [])]
    print(f"| network | threads | images | {' | '.join(names)} | ONNX Runtime {' | '.join(ratios)} |")
    print("|---" * (3 + len(names) + len(ratios)) + "|")
    for network in chosen.networks:
        with tempfile.TemporaryDirectory(prefix="accrete-bench-") as name:
            folder = Path(name)
            write(folder, network, MODELS[network], seed=0)
            version = load_version(folder)
            for threads in sorted({1, len(os.sched_getaffinity(0))}):
                torch.set_num_threads(threads)
                executions = made(folder, version, threads, with_openvino=with_openvino)
                for images in MINIBATCHES:
                    each = measured(executions, images, MODELS[network], chosen.rounds)
                    shares = [each[RUNTIME] / min(each[EAGER], each[FROZEN])]
                    shares += [each[RUNTIME] / each[OPENVINO]] if with_openvino else []
                    figures = " | ".join(f"{value:.2f}" for value in [*(each[one] for one in names), *shares])
                    print(f"| {network} | {threads} | {images} | {figures} |", flush=True)


def find_openvino() -> bool:
    """Whether OpenVINO can be imported, if need be from the environment of the peers; says so if it cannot."""
    release = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path.append(str(PEERS / "lib" / release / "site-packages"))  # last: all other packages are those at hand
    if importlib.util.find_spec("openvino") is None:
        print(f"OpenVINO is installed neither here nor in {PEERS}: `make bench BENCH=executions` installs it\n")
        return False
    return True


def made(folder: Path, version: LoadedVersion, threads: int, *, with_openvino: bool) -> dict[str, Compute]:
    """The executions of a version, by name."""
    executions = {
        EAGER: by_torch(eager(version)),
        FROZEN: by_torch(frozen(version)),
        RUNTIME: by_runtime(folder / EXECUTABLE, threads, arena=False),
        ARENA: by_runtime(folder / EXECUTABLE, threads, arena=True),
    }
    return executions | ({OPENVINO: by_openvino(folder / EXECUTABLE, threads)} if with_openvino else {})


def by_torch(compute: Callable[[torch.Tensor], torch.Tensor]) -> Compute:
    """An execution of torch as a function of arrays, which share their memory with its tensors."""
    return lambda pixels: compute(torch.from_numpy(pixels)).numpy()


def by_runtime(path: Path, threads: int, *, arena: bool) -> Compute:
    """A session of ONNX Runtime; ``arena``: its own allocator."""
    opened = session(path, threads=threads, arena=arena)

    def compute(pixels: Pixels) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = opened.run(["probabilities"], {"pixels": pixels})[0]
        return probabilities

    return compute


def by_openvino(path: Path, threads: int) -> Compute:
    """The graph compiled by OpenVINO for any number of images, in float32 even where bfloat16 is faster."""
    openvino: Any = importlib.import_module("openvino")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request, output = compiled.create_infer_request(), compiled.output("probabilities")
    # An input with a default value may still have to be given.
    more = {name: port for port in compiled.inputs if (name := port.get_any_name()) != "pixels"}

    def compute(pixels: Pixels) -> NDArray[np.float32]:
        others = {name: np.empty((0, *pixels.shape[1:]), np.float32) for name in more}
        probabilities: NDArray[np.float32] = request.infer({"pixels": pixels} | others, share_inputs=True)[output]
        return probabilities

    return compute


def measured(executions: dict[str, Compute], images: int, size: int, rounds: int) -> dict[str, float]:
    """Milliseconds an image, by execution; fails unless all give the same probabilities."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, size, size), dtype=np.uint8)
    expected = executions[EAGER](pixels)
    for name, compute in executions.items():
        assert np.abs(compute(pixels) - expected).max() < TOLERANCE, name
    times = max(1, LEAST_IMAGES // images)
    turns = Turns({name: partial(repeat, compute, pixels, times) for name, compute in executions.items()}, CPU)
    for _ in range(WARM_ROUNDS + rounds):
        turns.round()
    return {name: 1000 * median(seconds[WARM_ROUNDS:]) / images / times for name, seconds in turns.seconds.items()}


def repeat(compute: Compute, pixels: Pixels, times: int) -> None:
    """Compute the same minibatch again and again."""
    for _ in range(times):
        compute(pixels)


if __name__ == "__main__":
    main()
