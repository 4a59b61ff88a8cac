"""Edits: a version made from another one by dropping or merging classes, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from storage.domain.values import Json

LEAST_CLASSES = 2  # of a classifier


@dataclass(frozen=True, slots=True)
class Merge:
    """Classes that become one."""

    labels: tuple[str, ...]
    into: str  # one of these labels, or one that the version does not know


@dataclass(frozen=True, slots=True)
class EditedTasks:
    """The tasks after an edit, and what each of them, and of their classes, is made of."""

    tasks: tuple[tuple[str, ...], ...]
    members: Mapping[str, tuple[str, ...]]  # classes before, by class after
    origins: tuple[int, ...]  # number of each task before the edit, from 0


@dataclass(frozen=True, slots=True)
class Edit:
    """Classes that are dropped, and classes that are merged."""

    drop: tuple[str, ...] = ()
    merge: tuple[Merge, ...] = ()

    @property
    def made(self) -> frozenset[str]:
        """Labels of the merged classes."""
        return frozenset(one.into for one in self.merge)

    def to_json(self) -> dict[str, list[str] | list[dict[str, str | list[str]]]]:
        """The edit as a JSON object."""
        merges: list[dict[str, str | list[str]]] = [
            {"labels": list(one.labels), "into": one.into} for one in self.merge
        ]
        return {"drop": list(self.drop), "merge": merges}

    @classmethod
    def of(cls, document: Json) -> "Edit":
        """The inverse of `to_json`."""
        merges = tuple(Merge(tuple(one["labels"]), one["into"]) for one in document["merge"])
        return cls(tuple(document["drop"]), merges)

    def applied(self, tasks: Sequence[Sequence[str]]) -> EditedTasks:
        """The tasks after the edit: a merged class is where the first of its classes was, an empty task is left out.

        Raises ValueError, in words for the person who asked, where the edit does not fit the tasks.
        """
        self._check(frozenset(chain.from_iterable(tasks)))
        place = {label: (one.into, one.labels) for one in self.merge for label in one.labels}
        members: dict[str, tuple[str, ...]] = {}
        edited: list[tuple[str, ...]] = []
        origins: list[int] = []
        order = tuple(chain.from_iterable(tasks))
        for number, task in enumerate(tasks):
            kept: list[str] = []
            for label in (label for label in task if label not in self.drop):
                into, merged = place.get(label, (label, (label,)))
                if into not in members:
                    members[into] = tuple(one for one in order if one in merged)
                    kept.append(into)
            if kept:
                edited.append(tuple(kept))
                origins.append(number)
        if len(members) < LEAST_CLASSES:
            raise ValueError(f"{len(members)} classes would be left, and a classifier has at least {LEAST_CLASSES}")
        return EditedTasks(tuple(edited), members, tuple(origins))

    def merged(self, before: Mapping[str, str]) -> dict[str, str]:
        """By which class the images of former classes are held, after the edit; ``before`` is the same before it."""
        moved = {label: one.into for one in self.merge for label in one.labels}
        carried = {label: moved.get(held, held) for label, held in before.items() if held not in self.drop}
        return {label: held for label, held in (carried | moved).items() if label != held}

    def _check(self, known: frozenset[str]) -> None:
        named = [*self.drop, *chain.from_iterable(one.labels for one in self.merge)]
        if not named:
            raise ValueError("name classes to drop or to merge")
        if strange := sorted(set(named) - known):
            raise ValueError(f"there is no class {strange[0]!r}")
        if twice := sorted({label for label in named if named.count(label) > 1}):
            raise ValueError(f"{twice[0]!r} is named more than once")
        for one in self.merge:
            if len(one.labels) < 2:
                raise ValueError(f"merging into {one.into!r} needs two classes or more")
            if one.into in known - set(one.labels):
                raise ValueError(f"{one.into!r} is another class: merge it too, or choose another name")
        if len(self.made) < len(self.merge):
            raise ValueError("two merges are into one name: merge these classes at once")
