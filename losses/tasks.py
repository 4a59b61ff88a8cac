"""Where the logits of each task stand, and the softmax within every task at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

TaskSlices = tuple[slice, ...]


def task_slices(task_sizes: Sequence[int]) -> TaskSlices:
    """Columns of each task in [batch, classes], oldest first; tasks of one class are fine, of none are not."""
    if not task_sizes or min(task_sizes) < 1:
        raise ValueError(f"expected at least one task of at least one class each, got {tuple(task_sizes)}")
    slices, start = [], 0
    for size in task_sizes:
        slices.append(slice(start, start + size))
        start += size
    return tuple(slices)


@dataclass(frozen=True, slots=True)
class Segments:
    """Which task each class belongs to, as tensors: all tasks go through one call, however many and uneven."""

    count: int  # tasks
    of_class: Tensor  # int64 [classes], the task of each
    sizes: Tensor  # int64 [classes], number of classes in the task of each

    def log_softmax(self, logits: Tensor, temperature: float) -> Tensor:
        """Log softmax(logits / T) within each task, [batch, classes] both.

        The task's largest logit is taken off first, so that the result is as exact at any level of the task. A class
        is a row here: tasks are reduced row by row, each contiguous.
        """
        rows = logits.t().contiguous()
        below = (rows - self._maxima(rows.detach()).index_select(0, self.of_class)) / temperature
        sums = below.new_zeros(self.count, below.shape[1]).index_add(0, self.of_class, below.exp())
        return (below - sums.log().index_select(0, self.of_class)).t()

    def _maxima(self, rows: Tensor) -> Tensor:
        """Each task's largest, [classes, batch] to [tasks, batch]."""
        lowest = rows.new_full((self.count, rows.shape[1]), -torch.inf)
        return lowest.scatter_reduce_(0, self.of_class[:, None].expand_as(rows), rows, "amax")


def segments(tasks: TaskSlices, device: torch.device) -> Segments:
    """The segments of adjoining tasks, on a device; kept, so that a GPU is not made to wait for them at every step."""
    return _segments(tuple(task.stop - task.start for task in tasks), device)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # tensors first needed in inference mode would be of no use to training
def _segments(task_sizes: tuple[int, ...], device: torch.device) -> Segments:
    each = torch.tensor(task_sizes)
    of_class = torch.repeat_interleave(each)
    return Segments(count=len(each), of_class=of_class.to(device), sizes=each[of_class].to(device))
