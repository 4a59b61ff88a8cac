"""What it costs when OpenMP threads spin while they wait: `python -m benchmarks.thread_waiting`.

Trains ResNet-32 on random images with two threads, in one process and in two at once, under both wait policies of
OpenMP and with GNU's bounded spin (GOMP_SPINCOUNT rounds, then sleep), interleaved; prints images a second of each
process. Precision is that of our training on this machine.
"""

import argparse
import os
import subprocess
import sys
import time

from benchmarks.parts.machine import described

POLICIES = (
    "OMP_WAIT_POLICY=ACTIVE",
    "OMP_WAIT_POLICY=PASSIVE",
    "GOMP_SPINCOUNT=100",
    "GOMP_SPINCOUNT=1000",
    "GOMP_SPINCOUNT=10000",
    "GOMP_SPINCOUNT=100000",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        print(f"{images_per_second(chosen.seconds):.0f}")
        return
    print(f"{described()}\n")
    print("| round | policy | alone | two at once |\n|---|---|---|---|")
    for number in range(1, chosen.rounds + 1):
        for policy in POLICIES:
            alone, both = trained(policy, 1, chosen.seconds), trained(policy, 2, chosen.seconds)
            print(f"| {number} | {policy} | {' + '.join(alone)} | {' + '.join(both)} |", flush=True)


def trained(policy: str, processes: int, seconds: float) -> list[str]:
    """Images a second of some processes that train at the same time."""
    command = [sys.executable, "-m", "benchmarks.thread_waiting", "--worker", "--seconds", str(seconds)]
    rest = {name: value for name, value in os.environ.items() if name not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    environment = rest | dict([policy.split("=")])
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return [process.communicate()[0].strip() for process in started]


def images_per_second(seconds: float) -> float:
    """Steps of SGD on resident random images, for so long."""
    import torch

    from trainer.learning.compute import choose
    from trainer.networks import build

    torch.set_num_threads(2)
    execution = choose(torch.device("cpu"), "auto")
    network = build("resnet32", channels=3, image_size=32, task_sizes=(10,))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    images = torch.randn(64, 3, 32, 32).to(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (64,))
    network.to(memory_format=torch.channels_last)
    steps, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        optimiser.zero_grad()
        with execution.autocast():
            logits = network(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        steps += 1
    return steps * len(images) / (time.monotonic() - began)


if __name__ == "__main__":
    main()
