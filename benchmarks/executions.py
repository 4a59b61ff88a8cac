"""What a minibatch takes by each execution of a network: `python -m benchmarks.executions`.

Eager (channels-last), frozen by torch.jit, and compiled by Inductor, of the same untrained weights with 100 classes, in
turns on one thread and on all; the compiled one is made first, which is timed too. Milliseconds an image, medians.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from api.serving.execution.frozen import Forward, blueprint, frozen
from api.serving.execution.libraries import Compiler, Source
from api.serving.execution.plans import COMPILED, EAGER, FROZEN
from benchmarks.parts.machine import described
from benchmarks.parts.serving import MODELS, write
from benchmarks.parts.turns import Turns
from trainer.networks import load_version

MINIBATCHES = (1, 4, 16, 32)
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    chosen = parser.parse_args()
    print(f"{described()}\n")
    print(f"| network | threads | images | {EAGER} | {FROZEN} | {COMPILED} | {COMPILED} to the better |")
    print("|---|---|---|---|---|---|---|")
    for name, size in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            executions, seconds = made(name, size, Path(folder))
            for threads in sorted({1, len(os.sched_getaffinity(0))}):
                torch.set_num_threads(threads)
                for images in MINIBATCHES:
                    each = measured(executions, images, size, chosen.rounds)
                    share = each[COMPILED] / min(each[EAGER], each[FROZEN])
                    figures = " | ".join(f"{each[one]:.2f}" for one in (EAGER, FROZEN, COMPILED))
                    print(f"| {name} | {threads} | {images} | {figures} | {share:.2f} |", flush=True)
        print(f"| {name}: compiled in {seconds:.0f} s | | | | | | |", flush=True)


def made(name: str, size: int, folder: Path) -> tuple[dict[str, Forward], float]:
    """The executions of a network, and how long it took to compile it."""
    write(folder, name, size, seed=0)
    network = load_version(folder).network.requires_grad_(False)
    trace = blueprint(network, torch.rand(1, 3, size, size))
    assert trace is not None
    ice = frozen(network, trace)
    began = time.monotonic()
    library = Compiler(folder / "libraries", callers=1).compile(Source(name, 3, size, "linear"))
    seconds = time.monotonic() - began
    assert library is not None
    network.to(memory_format=torch.channels_last)
    return {EAGER: network, FROZEN: ice, COMPILED: library.forward(network)}, seconds


@torch.inference_mode()
def measured(executions: dict[str, Forward], images: int, size: int, rounds: int) -> dict[str, float]:
    """Milliseconds an image, by execution."""
    minibatch: Tensor = torch.rand(images, 3, size, size).contiguous(memory_format=torch.channels_last)
    turns = Turns({name: partial(forward, minibatch) for name, forward in executions.items()}, CPU)
    for _ in range(rounds + 2):
        turns.round()
    return {name: 1000 * median(seconds[2:]) / images for name, seconds in turns.seconds.items()}


if __name__ == "__main__":
    main()
