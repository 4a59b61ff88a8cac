"""What a new version says of each evaluation image, for the file of its evaluations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from storage.evaluations import TOP, Evaluations, ids_of


def evaluations_of(
    logits: NDArray[np.float64], *, targets: NDArray[np.int64], ids: Sequence[str], task_sizes: Sequence[int]
) -> Evaluations:
    """What logits [images, classes] say of each image, in both forms; predictions are those of the metrics."""
    task_of_class = np.repeat(np.arange(len(task_sizes)), task_sizes)
    own = np.where(task_of_class == task_of_class[targets][:, None], logits, -np.inf)
    top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    best = np.take_along_axis(logits, top, axis=1)
    total = np.exp(logits - best[:, :1]).sum(axis=1, keepdims=True)
    return Evaluations(
        ids=ids_of(ids),
        targets=targets.astype(np.int32),
        tag=logits.argmax(axis=1).astype(np.int32),
        taw=own.argmax(axis=1).astype(np.int32),
        top=top.astype(np.int32),
        scores=(np.exp(best - best[:, :1]) / total).astype(np.float16),
    )
