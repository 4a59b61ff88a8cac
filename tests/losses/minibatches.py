"""Minibatches as arrays, for the reference, and as tensors, for `losses`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
DIFFERENTIABLE = ("student_logits", "student_features", "student_attention", "student_scale")
FLOATS = (*DIFFERENTIABLE, "teacher_logits", "teacher_features", "teacher_attention")

each_shown = pytest.mark.parametrize("shown", ["new", "some", "all"])  # classes of which there are images
each_task_sizes = pytest.mark.parametrize(
    "task_sizes", [(3,), (1,), (2, 2), (3, 1), (1, 4), (1, 1, 1), (2, 5, 1, 3)], ids=str
)


@dataclass(frozen=True)
class Minibatch:
    """The keywords of an objective."""

    student_logits: Floats
    teacher_logits: Floats | None
    targets: NDArray[np.int64]
    task_sizes: tuple[int, ...]
    shown: tuple[int, ...]
    student_features: Floats
    teacher_features: Floats
    student_attention: Floats
    teacher_attention: Floats
    student_scale: Floats

    def tensors(self, dtype: torch.dtype = torch.float64, *, requires_grad: bool = False) -> dict[str, Any]:
        """The keywords as tensors, leaves of their own."""
        keywords: dict[str, Any] = {
            "targets": torch.tensor(self.targets),
            "task_sizes": self.task_sizes,
            "shown": self.shown,
        }
        for name in FLOATS:
            array = getattr(self, name)
            keywords[name] = None if array is None else torch.tensor(array, dtype=dtype, requires_grad=requires_grad)
        return keywords

    def rounded(self, dtype: torch.dtype) -> "Minibatch":
        """With every number as a less exact type holds it."""
        held: dict[str, Any] = {
            name: torch.tensor(array, dtype=dtype).double().numpy()
            for name in FLOATS
            if (array := getattr(self, name)) is not None
        }
        return replace(self, **held)


def gradients(keywords: dict[str, Any]) -> dict[str, Tensor]:
    """What arrived at the differentiable leaves."""
    return {name: keywords[name].grad for name in DIFFERENTIABLE if keywords[name].grad is not None}


def minibatch(
    task_sizes: Sequence[int], *, shown: str, seed: int = 0, batch: int = 5, dimensions: int = 4, side: int = 3
) -> Minibatch:
    """Random arrays; the targets are among the classes shown: the new ones, and all or every second of the old."""
    random = np.random.default_rng(seed)
    classes, old = sum(task_sizes), sum(task_sizes[:-1])
    step = {"new": old + 1, "some": 2, "all": 1}[shown]  # 1 of so many old classes, the last of them
    counts = tuple(3 + target if target >= old or (target + 1) % step == 0 else 0 for target in range(classes))
    return Minibatch(
        student_logits=random.normal(0, 2, (batch, classes)),
        teacher_logits=random.normal(0, 2, (batch, old)) if old else None,
        targets=random.choice([target for target, count in enumerate(counts) if count], batch),
        task_sizes=tuple(task_sizes),
        shown=counts,
        student_features=random.normal(0, 1, (batch, dimensions)),
        teacher_features=random.normal(0, 1, (batch, dimensions)),
        student_attention=random.uniform(0, 1, (batch, side, side)),
        teacher_attention=random.uniform(0, 1, (batch, side, side)),
        student_scale=np.array(3.5),
    )
