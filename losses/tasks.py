"""Where the logits of each task stand."""

from collections.abc import Sequence

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
