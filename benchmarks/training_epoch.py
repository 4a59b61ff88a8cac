"""What training costs beside its bare arithmetic, and beside a loop written the usual way.

`python -m benchmarks.training_epoch` trains the second task of 2,500 images of noise (ten classes after ten) with our
loop, and after each of its epochs gives as many steps to a bare loop (`benchmarks.parts.bareloop`: same network,
minibatch, precision and memory format; student forward and backward, teacher forward, SGD) and an epoch to a plain one
(`benchmarks.parts.plainloop`: PIL transforms in a DataLoader, float32, three forwards for LwM). All in one process, in
turn; the first round of each is not counted.
"""

import argparse
import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.parts.bareloop import BareLoop
from benchmarks.parts.machine import described
from benchmarks.parts.material import noise, untaught
from benchmarks.parts.plainloop import Habits, PlainLoop, successor
from benchmarks.parts.plainlosses import FAMILIES
from benchmarks.parts.turns import now
from trainer.learning.compute import choose
from trainer.learning.increment import Architecture, learn
from trainer.learning.learned import Learned
from trainer.recipes import Recipe, resolve

CLASSES = 10  # of each task
STRATEGIES = "lwf,lwf-bsr,lucir-bsr,lwm,lwm-bsr"


@dataclass(frozen=True)
class Case:
    """One comparison."""

    strategy: str
    parent: Learned
    architecture: Architecture
    recipe: Recipe
    images: int
    device: torch.device


class Interleaved:
    """A report that runs the rivals after each of our epochs, and keeps everybody's seconds."""

    def __init__(self, rivals: dict[str, Callable[[], object]], device: torch.device) -> None:
        self._rivals = rivals
        self._device = device
        self.seconds: dict[str, list[float]] = {name: [] for name in ("ours", *rivals)}
        self._resumed: float | None = None

    def progress(self, **state: Any) -> None:
        """Pass over."""

    def due(self) -> bool:
        """As often as the service's reports are, it costs next to nothing; never here."""
        return False

    def alive(self) -> None:
        """Pass over."""

    def opaque(self) -> AbstractContextManager[None]:
        """Pass over."""
        return nullcontext()

    def epoch(self, **done: Any) -> None:
        """Our epoch is complete: the others' turn."""
        ended = now(self._device)
        if self._resumed is not None:  # the first epoch began with what comes before any
            self.seconds["ours"].append(ended - self._resumed)
        for name, rival in self._rivals.items():
            began = now(self._device)
            rival()
            self.seconds[name].append(now(self._device) - began)
        self._resumed = now(self._device)

    def medians(self) -> dict[str, float]:
        """Seconds of an epoch by loop, without the round that warmed it up."""
        return {name: median(times if name == "ours" else times[1:]) for name, times in self.seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--minibatch", type=int, default=128)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain loop out")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    print(f"{described(device=chosen.device)}; {choose(device, chosen.precision).precision}, {chosen.network}\n")
    print("| strategy | images/s | bare loop | ratio to bare | plain loop | times the plain loop |")
    print("|---|---|---|---|---|---|")
    for strategy in chosen.strategies.split(","):
        torch.manual_seed(0)
        architecture = Architecture(chosen.network, chosen.image_size, 3)
        case = Case(
            strategy=strategy,
            parent=untaught(strategy, architecture=architecture, task_sizes=(CLASSES,)),
            architecture=architecture,
            recipe=recipe_of(strategy, chosen),
            images=chosen.images,
            device=device,
        )
        seconds = measured(case, plain=not chosen.no_plain and strategy.partition("-")[0] in FAMILIES)
        print(row(case, seconds), flush=True)


def recipe_of(strategy: str, chosen: argparse.Namespace) -> Recipe:
    """A small rate, so that noise does not make the loss diverge; everything else as recommended."""
    rounds = {"epochs": chosen.rounds + 1, "minibatch": chosen.minibatch, "learning_rate": 1e-3}
    return resolve(strategy, rounds, {"precision": chosen.precision})


def measured(case: Case, *, plain: bool) -> dict[str, float]:
    """Median seconds of an epoch of our loop, of the bare one, and of the plain one if it is wanted."""
    images = noise(case.images, architecture=case.architecture, first_class=CLASSES, classes=CLASSES)
    steps = -(-len(images) // case.recipe.minibatch)
    student = copy.deepcopy(case.parent.network)
    student.add_task(CLASSES)
    execution = choose(case.device, case.recipe.precision)
    bare = BareLoop(
        student,
        copy.deepcopy(case.parent.network),
        recipe=case.recipe,
        device=case.device,
        precision=getattr(torch, execution.precision),
        fused=True,
    )
    rivals: dict[str, Callable[[], object]] = {"bare": lambda: bare.steps(steps)}
    if plain:
        rivals["plain"] = PlainLoop(
            successor(case.parent.network, new_classes=CLASSES),
            copy.deepcopy(case.parent.network),
            images,
            case.parent.transform,
            habits=Habits(case.strategy, learning_rate=1e-3, minibatch=case.recipe.minibatch),
            device=case.device,
        ).epoch
    report = Interleaved(rivals, case.device)
    learn(
        parent=case.parent,
        architecture=case.architecture,
        new_classes=CLASSES,
        images=images,
        exemplars=None,
        strategy=case.strategy,
        recipe=case.recipe,
        t=1,
        weights_folder=Path(),
        device=case.device,
        report=report,
    )
    seconds = report.medians()
    seconds["bare"] *= len(images) / (steps * case.recipe.minibatch)  # its steps are all full
    return seconds


def row(case: Case, seconds: dict[str, float]) -> str:
    """Images a second, and how many times each rival's."""
    each = {name: case.images / spent for name, spent in seconds.items()}
    plain = f"{each['plain']:.0f} | {each['ours'] / each['plain']:.2f}" if "plain" in each else "– | –"
    return (
        f"| {case.strategy} | {each['ours']:.0f} | {each['bare']:.0f} | {each['ours'] / each['bare']:.2f} | {plain} |"
    )


if __name__ == "__main__":
    main()
