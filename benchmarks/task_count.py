"""What a hundred tasks cost more than two: `python -m benchmarks.task_count`.

Processor time of forward and backward of the objectives with a term for every old task, on a minibatch of 128 random
logits, with 1 thread. The new task has a hundredth of the classes; the old ones are one task, or 99: of equal size, or
all of one class but the last (of 100 classes the same). Next to them the same objective with a loop over the tasks, and
two tasks of equal size, which distil half of the classes where a hundred distil 99 %. The
cases take turns, each round in another order, so that whatever else the machine does meets all of them; medians.
"""

import argparse
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losses import Objective, objective
from losses.distillation import joint_distillation
from losses.tasks import task_slices

STRATEGIES = ("lwf-s", "lwf-bsr", "lucir-bsr")
CLASSES = (100, 200, 1000)
BATCH, DIMENSIONS = 128, 64
WARM_UP = 5  # rounds that are not counted

Total = Callable[[dict[str, Any]], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{platform.platform()}, {os.cpu_count()} processors, torch {torch.__version__}, 1 thread\n")
    print(
        "| strategy | classes | 2 tasks, µs | 100 tasks, µs | ratio | 100 uneven, µs | ratio | loop over 100, µs "
        "| 2 equal tasks, µs | ratio of 100 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for classes in CLASSES:
        for name in STRATEGIES:
            two, hundred, uneven, loop, equal = measured(name, classes, chosen.rounds)
            print(
                f"| {name} | {classes} | {two:.0f} | {hundred:.0f} | {hundred / two:.2f} "
                f"| {uneven:.0f} | {uneven / two:.2f} | {loop:.0f} | {equal:.0f} | {hundred / equal:.2f} |"
            )


def measured(name: str, classes: int, rounds: int) -> list[float]:
    """Microseconds of two tasks, a hundred, a hundred uneven ones, a loop over a hundred, and two equal tasks."""
    new = classes // 100
    old = classes - new
    at_once, in_turn = objective(name), looped(objective(name))
    hundred = minibatch([new] * 100)
    torch.testing.assert_close(in_turn(hundred), at_once(**hundred).total)  # a race of equals

    def whole(given: dict[str, Any]) -> Tensor:
        return at_once(**given).total

    cases: list[tuple[Total, dict[str, Any]]] = [
        (whole, minibatch([old, new])),
        (whole, hundred),
        (whole, minibatch([*[1] * 98, old - 98, new])),
        (in_turn, hundred),
        (whole, minibatch([classes // 2] * 2)),
    ]
    spent: list[list[float]] = [[] for _ in cases]
    for _ in range(WARM_UP + rounds):
        for case in torch.randperm(len(cases)).tolist():
            total, given = cases[case]
            began = time.process_time()
            total(given).backward()
            spent[case].append(time.process_time() - began)
            given["student_logits"].grad = given["student_features"].grad = None
    return [median(times[WARM_UP:]) * 1e6 for times in spent]


def minibatch(task_sizes: Sequence[int]) -> dict[str, Any]:
    """The keywords of an objective, with rehearsal."""
    classes = sum(task_sizes)
    return {
        "student_logits": torch.randn(BATCH, classes, requires_grad=True),
        "teacher_logits": torch.randn(BATCH, classes - task_sizes[-1]),
        "targets": torch.randint(classes, (BATCH,)),
        "task_sizes": task_sizes,
        "shown": [1] * classes,
        "student_features": torch.randn(BATCH, DIMENSIONS, requires_grad=True),
        "teacher_features": torch.randn(BATCH, DIMENSIONS),
        "student_scale": torch.tensor(10.0),
    }


def looped(chosen: Objective) -> Total:
    """The objective as it would be written task by task."""
    weights, hyper = chosen.weights, chosen.hyper
    rest = replace(chosen, weights={**weights, "separated": 0.0, "binary": 0.0})

    def total(given: dict[str, Any]) -> Tensor:
        *old, new = task_slices(given["task_sizes"])
        scale = hyper.distillation_weight
        if chosen.adaptive:
            scale *= math.sqrt(new.start / (new.stop - new.start))
        loss = rest(**given).total
        for task in old:
            student, teacher = given["student_logits"][:, task], given["teacher_logits"][:, task]
            kept = weights["separated"] * joint_distillation(
                student_logits=student, teacher_logits=teacher, temperature=hyper.temperature
            )
            if weights["binary"]:
                kept = kept + weights["binary"] * F.binary_cross_entropy_with_logits(student, torch.sigmoid(teacher))
            loss = loss + scale * kept
        return loss

    return total


if __name__ == "__main__":
    main()
