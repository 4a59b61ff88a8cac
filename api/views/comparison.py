"""Two versions side by side, image by image: what got better, what got worse, and whether chance explains it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.schemas.evaluations import ClassPairOut, ComparisonOut, PairOut, ShareOut
from storage.domain import Version
from storage.evaluations import Evaluations
from storage.statistics import interval, mcnemar

NAMED = 20  # images of a class that are named, of those that got better and of those that got worse
WORST = 3  # classes that the sentence names
LEVEL = 0.05  # of significance

Rows = NDArray[np.int64]
Right = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions, and what it said; None: it is of a release that kept metrics alone."""

    version: Version
    said: Evaluations | None


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
    if side.said is None or other.said is None:
        return _unrecorded(told, side if side.said is None else other)
    return _compared(told, side, other, form)


def _unrecorded(told: dict[str, object], missing: Side) -> ComparisonOut:
    sentence = (
        f"Version {missing.version.number} was made by a release that kept no results of single images, so nothing can "
        "be compared image by image: look at the metrics of both."
    )
    return ComparisonOut(
        **told,  # type: ignore[arg-type]
        recorded=False,
        sentence=sentence,
        together=None,
        task_aware=None,
        new_classes=None,
        classes=[],
    )


def _compared(told: dict[str, object], side: Side, other: Side, form: str) -> ComparisonOut:
    said, before = side.said, other.said
    assert said is not None
    assert before is not None
    rows, old_rows = _shared(said, before)
    right, was_right = _right(said, form)[rows], _right(before, form)[old_rows]
    classes = []
    for index, label in enumerate(side.version.classes):
        own = said.targets[rows] == index
        if own.any():
            classes.append(_of_class(label, said, rows[own], right[own], was_right[own]))
    together = _pair(right, was_right) if len(rows) else None
    aware = _pair(_right(said, "taw")[rows], _right(before, "taw")[old_rows]) if len(rows) else None
    known = set(other.version.classes)
    new = np.array([label not in known for label in side.version.classes])[said.targets]
    return ComparisonOut(
        **told,  # type: ignore[arg-type]
        recorded=True,
        sentence=_sentence(side.version.number, other.version.number, together, classes),
        together=together,
        task_aware=aware,
        new_classes=_share(_right(said, form)[new]) if new.any() else None,
        classes=classes,
    )


def _shared(said: Evaluations, before: Evaluations) -> tuple[Rows, Rows]:
    """Rows of the images that both have, in the same order."""
    kind = np.dtype((np.void, said.ids.shape[1]))
    ids = np.ascontiguousarray(said.ids).view(kind).ravel()
    old = np.ascontiguousarray(before.ids).view(kind).ravel()
    place = {image: row for row, image in enumerate(old.tolist())}
    found = [(row, place[image]) for row, image in enumerate(ids.tolist()) if image in place]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _right(said: Evaluations, form: str) -> Right:
    right: Right = said.predicted(form) == said.targets
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


def _of_class(label: str, said: Evaluations, rows: Rows, right: Right, was_right: Right) -> ClassPairOut:
    def named(which: Right) -> list[str]:
        return [said.image_id(row) for row in rows[which][:NAMED].tolist()]

    return ClassPairOut(
        **_pair(right, was_right).model_dump(),
        label=label,
        got_better=named(right & ~was_right),
        got_worse=named(was_right & ~right),
    )


def _sentence(version: int, other: int, together: PairOut | None, classes: Sequence[ClassPairOut]) -> str:
    if together is None:
        return f"Versions {version} and {other} were evaluated on no image in common."
    lost = sorted((one for one in classes if one.worse > one.better), key=lambda one: one.better - one.worse)
    worst = ", ".join(f"{one.label} ({one.better - one.worse} of {one.images})" for one in lost[:WORST])
    if not together.better + together.worse:
        return (
            f"Versions {version} and {other} have the same images right: {together.version.hits} of {together.images}."
        )
    verdict = "which chance explains" if together.p_value >= LEVEL else "more than chance explains"
    return (
        f"Of the {together.images} images that both were evaluated on, version {version} has {together.version.hits} "
        f"right and version {other} {together.other.hits}: {together.better} got better and {together.worse} worse, "
        f"{verdict} (p = {together.p_value:.2g})." + (f" Most lost: {worst}." if worst else "")
    )
