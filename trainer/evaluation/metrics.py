"""Every metric of a version, of accuracy and of forgetting, from the logits of its held-out images.

``a[t, u]`` is the accuracy of version t on the held-out images of task u. Versions are those of a line of ancestors,
counted from 0. A version adds one task or none. If it adds none, its row is as long as the one before, and every task
is an old one. None means not measured: a mean over a None is None, a maximum skips Nones. Every metric has two forms:
task-agnostic (``tag``: argmax over all classes) and task-aware (``taw``: argmax within the true task's classes).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Row = list[float | None]  # a[t, u] of every task u

CALIBRATION_BINS = 15  # Guo et al., arXiv:1706.04599 §4


@dataclass(frozen=True, slots=True)
class Scores:
    """One form of prediction, task-agnostic or task-aware, compared with the labels."""

    accuracy: Row  # by task, in 0 … 1
    confusion: NDArray[np.int64]  # [true class, predicted class] images
    calibration_error: float | None  # over all measured images
    whole: bool  # whether every task that can be predicted has images; if not, false positives are unknown


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Levels of each task's logits and head rows; levels that differ favour some tasks over others."""

    mean_logit_on_others: Row  # on held-out images of other tasks
    weight_norm: Row  # mean Euclidean norm of the head's rows
    bias: Row  # mean


@dataclass(frozen=True, slots=True)
class Measurement:
    """One version on its held-out images."""

    test_images: list[int | None]  # by task; None: not measured
    tag: Scores
    taw: Scores
    imbalance: Imbalance | None  # None where there is one task


def measure(
    *,
    logits: NDArray[Any],
    targets: NDArray[Any],
    task_sizes: Sequence[int],
    weight_norms: Sequence[float] | None = None,
    biases: Sequence[float] | None = None,
) -> Measurement:
    """Measure ``logits`` [n, classes] of held-out images against ``targets`` [n], indices among all classes.

    A task without any image among the targets counts as not measured. ``weight_norms`` [classes] and ``biases``
    [classes] are of the heads' rows, in the order of the logits; None where the head has none.
    """
    classes = sum(task_sizes)
    logits = np.asarray(logits, dtype=np.float64)
    targets = np.asarray(targets, dtype=np.int64)
    if logits.shape != (len(targets), classes):
        raise ValueError(f"logits: expected [{len(targets)}, {classes}], got {list(logits.shape)}")
    if not np.isfinite(logits).all():
        raise ValueError("logits: expected finite values, got NaN or infinity")
    if len(targets) and not (targets.min() >= 0 and targets.max() < classes):
        raise ValueError(f"targets: expected 0 … {classes - 1}, got {targets.min()} … {targets.max()}")
    task_of_class = np.repeat(np.arange(len(task_sizes)), task_sizes)
    task_of_image = task_of_class[targets]
    within_true_task = np.where(task_of_class == task_of_image[:, None], logits, -np.inf)
    images = np.bincount(task_of_image, minlength=len(task_sizes))
    return Measurement(
        test_images=[int(count) if count else None for count in images],
        tag=_scores(logits, targets, task_of_image, images, whole=bool(images.all())),
        taw=_scores(within_true_task, targets, task_of_image, images, whole=True),
        imbalance=_imbalance(logits, task_of_image, task_of_class, weight_norms, biases)
        if len(task_sizes) > 1
        else None,
    )


def document(ancestors: Sequence[Mapping[str, Any]], measurement: Measurement, labels: Sequence[str]) -> dict[str, Any]:
    """The JSON document stored with a version; ``ancestors`` are those of versions t = 0 … t − 1, oldest first."""
    known = [0, *(len(ancestor["tag"]["accuracy"]) for ancestor in ancestors), len(measurement.test_images)]
    if known[1] != 1 or any(after - before not in {0, 1} for before, after in pairwise(known)):
        raise ValueError(f"each version knows one task more than the one before or as many, got {known[1:]}")
    if len(labels) != len(measurement.tag.confusion):
        raise ValueError(f"expected {len(measurement.tag.confusion)} labels, got {len(labels)}")
    return {
        "test_images": measurement.test_images,
        **{
            form: _summary(
                [*(list(ancestor[form]["accuracy"]) for ancestor in ancestors), scores.accuracy],
                scores,
                test_images=measurement.test_images,
                labels=labels,
            )
            for form, scores in (("tag", measurement.tag), ("taw", measurement.taw))
        },
        "imbalance": None if measurement.imbalance is None else _levels(measurement.imbalance),
    }


def expected_calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float | None:
    """Σ over 15 equal bins (l, u] of confidence: share of images × |accuracy − mean confidence|.

    ``confidence`` [n] in 0 … 1; None without images.
    """
    if len(confidence) == 0:
        return None
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    bins = np.digitize(confidence, edges, right=True)
    surplus = np.bincount(bins, weights=confidence - correct, minlength=CALIBRATION_BINS)
    return float(np.abs(surplus).sum() / len(confidence))


def forgetting_by_task(matrix: Sequence[Row]) -> Row:
    """f[t, u] = max over l < t of a[l, u], minus a[t, u], of old tasks u (Chaudhry et al., arXiv:1801.10112 §3)."""
    *earlier, last = matrix
    forgetting: Row = []
    for u, now in enumerate(last[: _old(matrix)]):
        before = [accuracy for row in earlier if len(row) > u and (accuracy := row[u]) is not None]
        forgetting.append(max(before) - now if before and now is not None else None)
    return forgetting


def _old(matrix: Sequence[Row]) -> int:
    """How many tasks were known before the last version."""
    return len(matrix[-2]) if len(matrix) > 1 else 0


def _scores(logits: Floats, targets: Indices, task_of_image: Indices, images: Indices, *, whole: bool) -> Scores:
    """Compare the argmax of ``logits`` with ``targets``; a logit of −∞ excludes a class."""
    predicted = logits.argmax(axis=1)
    correct = predicted == targets
    right = np.bincount(task_of_image, weights=correct, minlength=len(images))
    confusion = np.zeros((logits.shape[1],) * 2, dtype=np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    best = logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(logits - best).sum(axis=1)  # softmax of the largest logit
    return Scores(
        accuracy=[float(hits / count) if count else None for hits, count in zip(right, images, strict=True)],
        confusion=confusion,
        calibration_error=expected_calibration_error(confidence, correct) if whole else None,
        whole=whole,
    )


def _imbalance(
    logits: Floats,
    task_of_image: Indices,
    task_of_class: Indices,
    weight_norms: Sequence[float] | None,
    biases: Sequence[float] | None,
) -> Imbalance:
    tasks = range(int(task_of_class[-1]) + 1)
    for name, rows in (("weight_norms", weight_norms), ("biases", biases)):
        if rows is not None and len(rows) != len(task_of_class):
            raise ValueError(f"{name}: expected one for each of {len(task_of_class)} classes, got {len(rows)}")
    others = [logits[np.ix_(task_of_image != task, task_of_class == task)] for task in tasks]
    whole = set(task_of_image.tolist()) == set(tasks)  # else the "others" of tasks could not be compared
    return Imbalance(
        mean_logit_on_others=[float(values.mean()) if whole else None for values in others],
        weight_norm=_mean_by_task(weight_norms, task_of_class),
        bias=_mean_by_task(biases, task_of_class),
    )


def _mean_by_task(rows: Sequence[float] | None, task_of_class: Indices) -> Row:
    tasks = range(int(task_of_class[-1]) + 1)
    if rows is None:
        return [None for _ in tasks]
    values = np.asarray(rows, dtype=np.float64)
    return [float(values[task_of_class == task].mean()) for task in tasks]


def _summary(
    matrix: Sequence[Row], scores: Scores, *, test_images: Sequence[int | None], labels: Sequence[str]
) -> dict[str, Any]:
    """One form's part of the document; ``matrix`` has a row for each version so far, the last for this one."""
    last, old = matrix[-1], _old(matrix)
    forgotten = [forgetting_by_task(matrix[: s + 1]) for s in range(len(matrix))]
    learned: Row = [next(row[u] for row in matrix if len(row) > u) for u in range(old)]
    transfer: Row = [
        None if now is None or then is None else now - then for now, then in zip(last[:old], learned, strict=True)
    ]
    return {
        "accuracy": last,
        "average_accuracy": _mean(last),
        "micro_accuracy": _weighted_mean(last, test_images),
        "average_incremental_accuracy": _mean([_mean(row) for row in matrix]),
        "forgetting": _mean(forgotten[-1]),
        "forgetting_by_task": forgotten[-1],
        "backward_transfer": _mean(transfer),
        "triangle_accuracy": _mean([accuracy for row in matrix for accuracy in row]),
        "triangle_forgetting": _mean([None if f is None else max(f, 0.0) for row in forgotten for f in row]),
        "per_class": {label: _of_class(scores, index) for index, label in enumerate(labels)},
        "confusion": [
            [int(true), int(predicted), int(scores.confusion[true, predicted])]
            for true, predicted in np.argwhere(scores.confusion)
        ],
        "calibration_error": scores.calibration_error,
    }


def _of_class(scores: Scores, index: int) -> dict[str, Any]:
    """Support, precision, recall and F1 of a class; None if it was not measured, or (precision) never predicted.

    If images of other tasks are missing, precision and F1 are unknown: a network that predicted this class for all
    images would have a precision of 1.
    """
    confusion = scores.confusion
    hits, support, predicted = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
    return {
        "support": int(support),
        "precision": float(hits / predicted) if scores.whole and support and predicted else None,
        "recall": float(hits / support) if support else None,
        "f1": float(2 * hits / (support + predicted)) if scores.whole and support else None,
    }


def _levels(imbalance: Imbalance) -> dict[str, Any]:
    columns = {name: getattr(imbalance, name) for name in ("mean_logit_on_others", "weight_norm", "bias")}
    return {
        "tasks": [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)],
        "spread": {name: None if None in values else float(np.std(values)) for name, values in columns.items()},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is None or there are no values, such as forgetting at t = 0."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _weighted_mean(values: Sequence[float | None], weights: Sequence[int | None]) -> float | None:
    weighted = [value * weight for value, weight in zip(values, weights, strict=True) if value is not None and weight]
    return sum(weighted) / sum(filter(None, weights)) if weighted and len(weighted) == len(values) else None
