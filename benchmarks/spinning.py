"""For how long the threads of a session should spin before they sleep: `python -m benchmarks.spinning`.

Sessions of one graph (100 classes) take turns in one process, on all processors: threads that sleep at once, and
threads that spin for some microseconds. One thread alone is beside them. Milliseconds an image, medians.
"""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.parts.machine import described
from benchmarks.parts.onnxsessions import session
from benchmarks.parts.serving import MODELS, write
from benchmarks.parts.turns import Turns
from trainer.networks.manifest import EXECUTABLE, PIXELS, PROBABILITIES

SPINS = (0, 50, 100, 200, 400)  # microseconds
MINIBATCHES = (1, 4, 16, 32)
WARM_ROUNDS = 3
IMAGES = 8  # of a turn, at least: several minibatches after each other, as under load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    threads = len(os.sched_getaffinity(0))
    print(f"{described()}\n")
    print(f"| network | images | one thread | {' | '.join(f'{threads}, {spin} µs' for spin in SPINS)} |")
    print("|---" * (3 + len(SPINS)) + "|")
    for network, size in MODELS.items():
        with tempfile.TemporaryDirectory(prefix="accrete-bench-") as name:
            write(Path(name), network, size, seed=0)
            path = Path(name) / EXECUTABLE
            sessions = {"one": session(path, threads=1, arena=False)}
            sessions |= {str(spin): session(path, threads=threads, arena=False, spin=spin) for spin in SPINS}
            for images in MINIBATCHES:
                pixels = np.random.default_rng(0).integers(0, 256, (images, 3, size, size), np.uint8)
                times = max(1, IMAGES // images)
                turns = Turns(
                    {name: partial(run, one, pixels, times) for name, one in sessions.items()}, torch.device("cpu")
                )
                for _ in range(WARM_ROUNDS + rounds):
                    turns.round()
                each = [1000 * median(seconds[WARM_ROUNDS:]) / images / times for seconds in turns.seconds.values()]
                print(f"| {network} | {images} | {' | '.join(f'{one:.2f}' for one in each)} |", flush=True)


def run(one: object, pixels: object, times: int) -> None:
    """Compute a minibatch so many times."""
    for _ in range(times):
        one.run([PROBABILITIES], {PIXELS: pixels})  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
