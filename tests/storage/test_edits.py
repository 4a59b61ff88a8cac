"""What edits make of tasks, and what a line of versions with edits says of tasks, classes and evaluation images."""

from dataclasses import replace

import pytest

from storage.domain import Edit, Merge, Version, now
from storage.history.lineage import in_present_tasks, sources

TASKS = (("a", "b"), ("c",), ("d", "e"))


def edit(drop: str = "", **merges: str) -> Edit:
    """Classes of one letter that are dropped, and merged into the names of the keywords."""
    return Edit(tuple(drop), tuple(Merge(tuple(labels), into) for into, labels in merges.items()))


@pytest.mark.parametrize(
    ("asked", "tasks", "origins"),
    [
        (edit("b"), (("a",), ("c",), ("d", "e")), (0, 1, 2)),
        (edit("c"), (("a", "b"), ("d", "e")), (0, 2)),
        (edit("abc"), (("d", "e"),), (2,)),
        (edit(x="ab"), (("x",), ("c",), ("d", "e")), (0, 1, 2)),
        (edit(x="ce"), (("a", "b"), ("x",), ("d",)), (0, 1, 2)),
        (edit(b="cb"), (("a", "b"), ("d", "e")), (0, 2)),  # into one of them, from a task that is left empty
        (edit("a", x="bd", y="ce"), (("x",), ("y",)), (0, 1)),
    ],
)
def test_what_an_edit_makes_of_the_tasks(asked: Edit, tasks: tuple[tuple[str, ...], ...], origins: tuple[int, ...]):
    applied = asked.applied(TASKS)
    assert applied.tasks == tasks
    assert applied.origins == origins
    named = {label: one.labels for one in asked.merge for label in [one.into]}
    for label, members in applied.members.items():
        assert set(members) == set(named.get(label, (label,)))
        assert list(members) == sorted(members)  # in the order of the logits


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (edit(), "name classes"),
        (edit("z"), "no class 'z'"),
        (edit("aa"), "'a' is named more than once"),
        (edit("a", x="ab"), "'a' is named more than once"),
        (edit(x="ab", y="bc"), "'b' is named more than once"),
        (edit(x="a"), "needs two classes"),
        (edit(d="ab"), "'d' is another class"),
        (edit("abcd"), "1 classes would be left"),
        (edit(x="abcde"), "1 classes would be left"),
        (Edit((), (Merge(("a", "b"), "x"), Merge(("c", "d"), "x"))), "two merges are into one name"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_with_the_reason(asked: Edit, reason: str):
    with pytest.raises(ValueError, match=reason):
        asked.applied(TASKS)


def test_an_edit_is_the_same_after_it_was_stored():
    asked = edit("a", x="bd", y="ce")
    assert Edit.of(asked.to_json()) == asked


def test_images_follow_merges_of_merges_and_not_dropped_classes():
    first = edit(x="ab").merged({})
    assert first == {"a": "x", "b": "x"}
    assert edit(c="xc").merged(first) == {"a": "c", "b": "c", "x": "c"}
    assert edit("x").merged(first) == {}
    assert edit(a="xa").merged({"b": "x"}) == {"b": "a", "x": "a"}


def line_of(*changes: tuple[str, ...] | Edit) -> list[Version]:
    """Versions that added tasks, or were edited, one after another."""
    made: list[Version] = []
    fields = {"model_id": "m", "strategy": "lwf", "recipe": {}, "files": {}, "data_digest": "", "code_version": ""}
    for number, change in enumerate(changes, start=1):
        before = made[-1] if made else None
        version = Version(
            number=number,
            parent=number - 1 or None,
            increment_id=f"increment {number}",
            tasks=(*(before.tasks if before else ()), *([change] if isinstance(change, tuple) else [])),
            seconds={},
            created_at=now(),
            merged=before.merged if before else {},
            **fields,  # type: ignore[arg-type]
        )
        if isinstance(change, Edit):
            applied = change.applied(version.tasks)
            document = {**change.to_json(), "tasks": list(applied.origins)}
            merged = change.merged(version.merged)
            version = replace(version, tasks=applied.tasks, edit=document, merged=merged)
        made.append(version)
    return made


def origins(line: list[Version]) -> dict[str, tuple[str, int]]:
    """By label of images: their class, and the number of the version whose increment brought it."""
    return {label: (source.label, int(source.increment_id[-1])) for label, source in sources(line).items()}


def test_evaluation_images_of_merged_classes_come_from_the_increments_that_added_them():
    line = line_of(("a", "b"), ("c", "d"), edit("b", x="ac"), ("e",))
    assert origins(line[:2]) == {"a": ("a", 1), "b": ("b", 1), "c": ("c", 2), "d": ("d", 2)}
    assert origins(line) == {"a": ("x", 1), "c": ("x", 2), "d": ("d", 2), "e": ("e", 4)}


def test_a_class_that_was_dropped_and_taught_again_has_the_images_that_brought_it_back():
    assert origins(line_of(("a", "b"), ("c", "d"), edit("b"), ("b",)))["b"] == ("b", 4)


def document(*accuracies: float) -> dict[str, dict[str, list[float]]]:
    return {form: {"accuracy": list(accuracies)} for form in ("tag", "taw")}


def test_accuracies_are_of_the_tasks_that_the_last_version_has():
    line = line_of(("a", "b"), ("c",), ("d", "e"), edit("c"), ("f",), edit("ab"))
    documents = [document(*(10 * number + task for task in range(len(one.tasks)))) for number, one in enumerate(line)]
    shown = in_present_tasks(line, documents)
    assert [one["tag"]["accuracy"] for one in shown] == [[22], [31], [41, 42], [50, 51]]
    every = in_present_tasks(line, documents, every=True)
    assert [one["taw"]["accuracy"] for one in every] == [[], [], [22], [31], [41, 42], [50, 51]]
    assert [one["tag"]["accuracy"] for one in in_present_tasks(line, documents[:-1])] == [[22], [31], [41, 42]]
    assert in_present_tasks(line[:3], documents[:3]) == documents[:3]
