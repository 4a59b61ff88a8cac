"""Two versions side by side, image by image: what got better, what got worse, and whether chance explains it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.schemas.evaluations import ClassPairOut, ComparisonOut, PairOut, ShareOut
from storage.domain import Version
from storage.evaluations import Evaluations
from storage.statistics import interval, mcnemar

NAMED = 20  # images of a class that are named, of those that got better and of those that got worse
WORST = 3  # classes that the sentence names
UNRECORDED = (
    "Version {} was made by a release that kept no results of single images: look at the metrics of the version."
)
LEVEL = 0.05  # of significance

Rows = NDArray[np.int64]
Right = NDArray[np.bool_]
Names = NDArray[np.str_]  # [classes], by place among the logits


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions, and its results; None: it is of a release that kept metrics alone."""

    version: Version
    results: Evaluations | None


def compare(model: str, side: Side, other: Side, *, form: str) -> ComparisonOut:
    """``side`` beside ``other``: on the images that both were evaluated on, in a form, tag or taw."""
    labels, before = side.version.classes, other.version.classes
    told = {
        "model": model,
        "version": side.version.number,
        "other": other.version.number,
        "form": form,
        "only_version": [label for label in labels if label not in set(before)],
        "only_other": [label for label in before if label not in set(labels)],
    }
    if side.results is None or other.results is None:
        return _unrecorded(told, side if side.results is None else other)
    return _compared(told, side, other, form)


def _unrecorded(told: dict[str, object], missing: Side) -> ComparisonOut:
    sentence = UNRECORDED.format(missing.version.number)
    return ComparisonOut(
        **told,  # type: ignore[arg-type]
        recorded=False,
        sentence=sentence,
        relabelled=0,
        together=None,
        task_aware=None,
        new_classes=None,
        classes=[],
    )


def _compared(told: dict[str, object], side: Side, other: Side, form: str) -> ComparisonOut:
    results, before = side.results, other.results
    assert results is not None
    assert before is not None
    rows, old_rows = _shared(results, before)
    of_side, of_other = _united(side.version, other.version)
    same = of_side[results.targets[rows]] == of_other[before.targets[old_rows]]
    rows, old_rows = rows[same], old_rows[same]

    def pair(form: str, at: Rows, old_at: Rows) -> tuple[Right, Right]:
        return _right(results, form, of_side)[at], _right(before, form, of_other)[old_at]

    right, was_right = pair(form, rows, old_rows)
    classes = []
    for index, label in enumerate(side.version.classes):
        own = results.targets[rows] == index
        if own.any():
            classes.append(_of_class(label, results, rows[own], right[own], was_right[own]))
    together = _pair(right, was_right) if len(rows) else None
    aware = _pair(*pair("taw", rows, old_rows)) if len(rows) else None
    known = set(of_other.tolist())
    new = np.array([label not in known for label in of_side.tolist()])[results.targets]
    answer = ComparisonOut(
        **told,  # type: ignore[arg-type]
        recorded=True,
        sentence="",
        relabelled=int((~same).sum()),
        together=together,
        task_aware=aware,
        new_classes=_share(_right(results, form, of_side)[new]) if new.any() else None,
        classes=classes,
    )
    answer.sentence = _sentence(answer)
    return answer


def _shared(results: Evaluations, before: Evaluations) -> tuple[Rows, Rows]:
    """Rows of the images that both have, in the same order."""
    place = {before.image_id(row): row for row in range(len(before))}
    found = [(row, place[image]) for row in range(len(results)) if (image := results.image_id(row)) in place]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _united(version: Version, other: Version) -> tuple[Names, Names]:
    """What the classes of two versions are called in both: those that one of them has merged are one class."""

    def name(label: str) -> str:
        label = version.merged.get(label, label)
        return other.merged.get(label, label)

    return np.array(list(map(name, version.classes))), np.array(list(map(name, other.classes)))


def _right(results: Evaluations, form: str, names: Names) -> Right:
    right: Right = names[results.predicted(form)] == names[results.targets]
    return right


def _share(right: Right) -> ShareOut:
    hits, images = int(right.sum()), len(right)
    low, high = interval(hits, images)
    return ShareOut(hits=hits, share=hits / images, low=low, high=high)


def _pair(right: Right, was_right: Right) -> PairOut:
    better, worse = int((right & ~was_right).sum()), int((was_right & ~right).sum())
    return PairOut(
        images=len(right),
        version=_share(right),
        other=_share(was_right),
        better=better,
        worse=worse,
        p_value=mcnemar(worse, better),
    )


def _of_class(label: str, results: Evaluations, rows: Rows, right: Right, was_right: Right) -> ClassPairOut:
    def named(which: Right) -> list[str]:
        return [results.image_id(row) for row in rows[which][:NAMED].tolist()]

    return ClassPairOut(
        **_pair(right, was_right).model_dump(),
        label=label,
        got_better=named(right & ~was_right),
        got_worse=named(was_right & ~right),
    )


def _sentence(found: ComparisonOut) -> str:
    together, aware, version, other = found.together, found.task_aware, found.version, found.other
    if together is None or aware is None:
        return f"Versions {version} and {other} were evaluated on no image in common."
    if not together.better + together.worse:
        equal = f"{together.version.hits} of {together.images}"
        return f"Versions {version} and {other} have the same images right: {equal}."
    is_chance = together.p_value >= LEVEL
    lost = sorted((one for one in found.classes if one.worse > one.better), key=lambda one: one.better - one.worse)
    worst = ", ".join(f"{one.label} ({one.better - one.worse} of {one.images})" for one in lost[:WORST])
    parts = [
        f"Of the {together.images} images that both were evaluated on, version {version} has {together.version.hits} "
        f"right and version {other} {together.other.hits}: {together.better} got better and {together.worse} worse, "
        f"{'which chance explains' if is_chance else 'more than chance explains'} (p = {together.p_value:.2g}).",
        f"Most lost: {worst}." if worst else "",
        _left_out(found.relabelled),
        _cause(together, aware) if found.form == "tag" and not is_chance and together.worse > together.better else "",
    ]
    return " ".join(filter(None, parts))


def _left_out(images: int) -> str:
    if not images:
        return ""
    which = "is 1 image that was" if images == 1 else f"are {images} images that were"
    return f"Left out {which} moved to another class between the two evaluations."


def _cause(together: PairOut, aware: PairOut) -> str:
    """What a loss comes from: more classes make the task harder, even where nothing is forgotten."""
    lost, forgotten = together.worse - together.better, aware.worse - aware.better
    within = f"Within the classes of their own task, {max(forgotten, 0)} of these {lost} are lost"
    if 2 * forgotten >= lost:
        return f"{within}: most of it is forgetting."
    return f"{within}: most of it is confusion with classes of other tasks."
