"""What a line of versions says of its last one: where its evaluation images come from, and its tasks before edits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.domain import Json, Version

FORMS = ("tag", "taw")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the evaluation images of a label come from."""

    label: str  # of the class that the last version knows them as
    increment_id: str  # whose batch brought the class first


def sources(line: Sequence[Version]) -> Mapping[str, Source]:
    """By the label of evaluation images: the class that the last version of a line knows them as, and their origin.

    A class is measured on the evaluation images of the increment that added it. Merged classes bring their own.
    """
    added: dict[str, str] = {}
    before: frozenset[str] = frozenset()
    for version in line:
        now = frozenset(version.classes)
        if version.edit is None:
            added.update(dict.fromkeys(now - before, version.increment_id))
        before = now
    merged = line[-1].merged if line else {}
    held = {label: merged.get(label, label) for label in added}
    return {label: Source(held[label], added[label]) for label in sorted(added) if held[label] in before}


def in_present_tasks(line: Sequence[Version], documents: Sequence[Json], *, every: bool = False) -> list[Json]:
    """The metrics of a line of versions with the accuracies of the tasks that its last version has.

    ``documents`` are of the first versions of the line, or of all. Edits leave out tasks of which all classes were
    dropped or merged into earlier ones. A version that knew none of the others is left out, unless ``every`` one is
    wanted. Figures stay as they were measured, also where some classes of a task were dropped later.
    """
    if all(version.edit is None for version in line):
        return list(documents)
    return [
        _of_tasks(document, kept) for document, kept in zip(documents, _columns(line), strict=False) if kept or every
    ]


def _columns(line: Sequence[Version]) -> list[list[int]]:
    """For each version of a line, the numbers among its own tasks of those that the last version has, from 0."""
    found: list[list[int]] = []
    kept = list(range(len(line[-1].tasks)))
    for version in reversed(line):
        kept = [task for task in kept if task < len(version.tasks)]
        found.append(kept)
        if version.edit is not None:
            kept = [version.edit["tasks"][task] for task in kept]
    return found[::-1]


def _of_tasks(document: Json, tasks: Sequence[int]) -> Json:
    parts = {form: {**document[form], "accuracy": [document[form]["accuracy"][u] for u in tasks]} for form in FORMS}
    return {**document, **parts}
