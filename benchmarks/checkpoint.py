"""What a checkpoint costs the training that writes it: `python -m benchmarks.checkpoint`.

Builds and writes the checkpoint of a training with momentum, for some networks, and compares with an epoch of 20 s. The
worker stores the file while training goes on, which is not counted.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.parts.machine import described
from benchmarks.parts.material import noise, untaught
from trainer.learning.checkpoint import write
from trainer.learning.compute import choose
from trainer.learning.increment import Architecture
from trainer.learning.minibatches import Minibatches
from trainer.learning.schedules import schedule_for
from trainer.learning.seeds import Seeds
from trainer.learning.state import TrainingState
from trainer.recipes import resolve

EPOCH_SECONDS = 20.0
CPU = torch.device("cpu")
NETWORKS = ("resnet32", "resnet18", "resnet50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    print(f"{described()}\n")
    print("| network | bytes | milliseconds | of an epoch of 20 s |\n|---|---|---|---|")
    for name in NETWORKS:
        size, seconds = measured(name, chosen.rounds)
        print(f"| {name} | {size:,} | {1000 * seconds:.1f} | {seconds / EPOCH_SECONDS:.2%} |", flush=True)


def measured(name: str, rounds: int) -> tuple[int, float]:
    """Bytes of a checkpoint, and median seconds of making and writing it."""
    progression = begun(name)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.safetensors"
        for _ in range(rounds):
            began = time.perf_counter()
            write(file, progression.checkpoint(epoch=1))
            times.append(time.perf_counter() - began)
        return file.stat().st_size, median(times)


def begun(name: str) -> TrainingState:
    """A training after its first step, from where on there is momentum."""
    architecture = Architecture(name, 32, 3)
    made = untaught("lwf", architecture=architecture, task_sizes=(10,))
    recipe = resolve("lwf", {})
    optimiser = torch.optim.SGD(made.network.parameters(), lr=0.1, momentum=0.9)
    made.network(torch.randn(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    schedule = schedule_for(
        "cosine",
        optimiser,
        made.network,
        epochs=2,
        steps_per_epoch=10,
        warmup_epochs=0.0,
        patience=1,
        rate_divisor=2.0,
        lowest_rate=0.1,
    )
    images = noise(20, architecture=architecture, first_class=0, classes=10)
    minibatches = Minibatches(
        images, transform=made.transform, recipe=recipe, seeds=Seeds(0, 1), sampling="uniform", device=CPU
    )
    return TrainingState(made.network, optimiser, schedule, minibatches, choose(CPU, "auto"))


if __name__ == "__main__":
    main()
