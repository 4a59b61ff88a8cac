"""The columns of each task's logits, and a softmax within every task at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

TaskSlices = tuple[slice, ...]


def task_slices(task_sizes: Sequence[int]) -> TaskSlices:
    """Columns of each task in [batch, classes], oldest first; raises ValueError for a task without classes."""
    if not task_sizes or min(task_sizes) < 1:
        raise ValueError(f"expected at least one task of at least one class each, got {tuple(task_sizes)}")
    slices, start = [], 0
    for size in task_sizes:
        slices.append(slice(start, start + size))
        start += size
    return tuple(slices)


@dataclass(frozen=True, slots=True)
class Segments:
    """The task of each class, as tensors: one call computes all tasks, whatever their number and sizes."""

    count: int  # tasks
    of_class: Tensor  # int64 [classes], the task of each
    sizes: Tensor  # int64 [classes], number of classes in the task of each

    def log_softmax(self, logits: Tensor, temperature: float) -> Tensor:
        """Log softmax(logits / T) within each task, [batch, classes] both.

        The task's largest logit is subtracted first, so that precision does not depend on the level of the task. The
        logits are transposed to [classes, batch], so that tasks are reduced over contiguous rows.
        """
        rows = logits.t().contiguous()
        below = (rows - self._maxima(rows.detach()).index_select(0, self.of_class)) / temperature
        sums = below.new_zeros(self.count, below.shape[1]).index_add(0, self.of_class, below.exp())
        return (below - sums.log().index_select(0, self.of_class)).t()

    def _maxima(self, rows: Tensor) -> Tensor:
        """The largest logit of each task, [classes, batch] to [tasks, batch]."""
        lowest = rows.new_full((self.count, rows.shape[1]), -torch.inf)
        return lowest.scatter_reduce_(0, self.of_class[:, None].expand_as(rows), rows, "amax")


def segments(tasks: TaskSlices, device: torch.device) -> Segments:
    """The segments of adjoining tasks, on a device; cached, so that no step copies them to a GPU and waits."""
    return _segments(tuple(task.stop - task.start for task in tasks), device)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # training cannot use tensors created in inference mode
def _segments(task_sizes: tuple[int, ...], device: torch.device) -> Segments:
    each = torch.tensor(task_sizes)
    of_class = torch.repeat_interleave(each)
    return Segments(count=len(each), of_class=of_class.to(device), sizes=each[of_class].to(device))
