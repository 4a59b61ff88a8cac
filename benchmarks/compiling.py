"""From how many steps on `torch.compile` would pay for itself: `python -m benchmarks.compiling`.

Steps of the bare loop (`benchmarks.parts.bareloop`: student forward and backward, teacher forward, SGD) with backbones
as they are, in turn with compiled ones. Compiling is what the first steps take longer; caches on disk are left unused,
as they would be empty on a machine that trains this network for the first time.
"""

import argparse
import copy
import os
import tempfile
from functools import partial
from statistics import median

import torch

from benchmarks.parts.bareloop import BareLoop
from benchmarks.parts.machine import described
from benchmarks.parts.material import untaught
from benchmarks.parts.turns import Turns, now, ratio
from trainer.learning.compute import choose
from trainer.learning.increment import Architecture
from trainer.recipes import resolve

CLASSES = 10  # of each task
STEPS = 10  # a turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--minibatches", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--mode", help="of torch.compile, such as reduce-overhead (CUDA graphs)")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    print(f"{described(device=chosen.device)}; {choose(device, 'auto').precision}, {chosen.network}\n")
    print(
        "| minibatch | step, ms | compiled, ms | ratio | compiling, s | pays from, steps |\n|---|---|---|---|---|---|"
    )
    for minibatch in chosen.minibatches:
        with tempfile.TemporaryDirectory(prefix="accrete-bench-") as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            print(row(minibatch, device, chosen), flush=True)


def row(minibatch: int, device: torch.device, chosen: argparse.Namespace) -> str:
    """One comparison."""
    torch.manual_seed(0)
    torch.compiler.reset()
    loops = {name: loop(minibatch, device, chosen) for name in ("eager", "compiled")}
    for network in loops["compiled"].networks:
        network.backbone.compile(mode=chosen.mode)
    began = now(device)
    loops["compiled"].steps(STEPS)
    first = now(device) - began
    turns = Turns({name: partial(each.steps, STEPS) for name, each in loops.items()}, device)
    for _ in range(chosen.rounds + 1):
        turns.round()
    eager, compiled = (turns.seconds[name][1:] for name in ("eager", "compiled"))
    each, faster = median(eager) / STEPS, median(compiled) / STEPS
    compiling = first - median(compiled)
    pays = f"{compiling / (each - faster):,.0f}" if faster < each else "never"
    times = f"{1000 * each:.1f} | {1000 * faster:.1f} | {ratio(compiled, eager)[0]:.2f}"
    return f"| {minibatch} | {times} | {compiling:.0f} | {pays} |"


def loop(minibatch: int, device: torch.device, chosen: argparse.Namespace) -> BareLoop:
    """A student with a task more than its teacher."""
    architecture = Architecture(chosen.network, chosen.image_size, 3)
    teacher = untaught("lwf-bsr", architecture=architecture, task_sizes=(CLASSES,)).network
    student = copy.deepcopy(teacher)
    student.add_task(CLASSES)
    return BareLoop(
        student,
        teacher,
        recipe=resolve("lwf-bsr", {"minibatch": minibatch}),
        device=device,
        precision=getattr(torch, choose(device, "auto").precision),
        fused=True,
    )


if __name__ == "__main__":
    main()
