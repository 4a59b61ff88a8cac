"""Whether a batch can become an increment of a model: decided on POST, and again when the increment is claimed."""

from collections.abc import Collection, Sequence

from storage.domain import AS_HELD, ClassCount, KnownClasses, Names
from storage.errors import BatchInvalid, ClassesAlreadyKnown, NothingToLearn

_SHOWN = 20  # class names in a message; the problem document has all of them


def check_classes(
    *,
    batch: Sequence[ClassCount],
    known: Collection[str],
    policy: KnownClasses,
    has_memory: bool,
    stored: Collection[str] = (),
    duplicate_of: str | None = None,
    names: Names = AS_HELD,
) -> None:
    """Raise an error if the batch cannot be learned (DESIGN, Batches); it calls classes by their ``names``.

    ``known`` are the classes that the model will have when the increment starts: those of the head and of queued
    increments. With ``has_memory``, stored images of old classes are trained on beside the batch; ``stored`` are the
    classes that have some. Raises `ClassesAlreadyKnown`, `NothingToLearn` and `BatchInvalid`.
    """
    labels = {count.label for count in batch}
    overlap = sorted(names.all(labels & set(known)))
    new = sorted(names.all(labels - set(known)))
    if overlap and policy is KnownClasses.REFUSE:
        raise ClassesAlreadyKnown(
            f"The model already knows, or is about to learn, {_names(overlap)}: leave these classes out, "
            "or pass known_classes=rehearse to train on them too.",
            classes=overlap,
            duplicate_of=duplicate_of,
        )
    if not labels:
        raise NothingToLearn("The batch holds no class at all: send images of a new class, or of known ones.")
    few = sorted(names.name(count.label) for count in batch if count.images < 2)
    if few:
        raise BatchInvalid(f"A class needs at least two distinct images; {_names(few)} has fewer.", classes=few)
    if not new:
        check_all_shown(known=known, shown=labels | set(stored if has_memory else ()), names=names)
    rehearses = bool(known) and (has_memory or bool(overlap))
    if len(new) == 1 and not rehearses:
        way_out = (
            "send a second new class with it"
            if not known
            else "send a second new class with it, or give the model a memory with a place for every class: rehearsal "
            "sets old classes beside it"
        )
        raise NothingToLearn(
            f"{new[0]!r} alone cannot be learned: cross-entropy over a single class is constant; {way_out}.",
            classes=new,
        )


def check_all_shown(*, known: Collection[str], shown: Collection[str], names: Names) -> None:
    """Raise `NothingToLearn` if an increment without a new class would have no images of some known classes.

    The classes with images would be trained against each other alone, and the others would be forgotten for no gain.
    """
    if missing := sorted(names.all(set(known) - set(shown))):
        raise NothingToLearn(
            f"The batch brings no new class, and of {_names(missing)} there is no image to learn from: send images of "
            "these classes with it, or of a new class, or give the model a memory with a place for every class before "
            "their images go.",
            classes=missing,
        )


def _names(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_SHOWN])
    return shown if len(labels) <= _SHOWN else f"{shown} and {len(labels) - _SHOWN} more"
