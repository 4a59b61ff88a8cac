"""Evaluation images of a version: which stored images it is measured on, and as which classes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from storage.domain import Batch, Image, Split, Version
from storage.history.lineage import sources
from storage.material import images


def of_tasks(
    connection: Connection, line: Sequence[Version], batch_of: Mapping[str, Batch]
) -> tuple[tuple[Image, ...], ...]:
    """The stored evaluation images of each task of the last version of a line, as of the classes that it knows.

    A class is measured on the evaluation images of the increment that added it, and on those that were moved to it
    since, unless none of the first are left; later batches add none. ``batch_of`` are the batches by increment id.
    """
    if not line:
        return ()
    wanted: dict[str, set[str]] = defaultdict(set)  # labels by batch
    origin = sources(line)
    for label, source in origin.items():
        wanted[batch_of[source.increment_id].id].add(label)
    found: dict[str, list[Image]] = defaultdict(list)
    for batch_id, labels in wanted.items():
        for image in images.of_batch(connection, batch_id, split=Split.TEST, labels=labels):
            found[origin[image.label].label].append(image)
    ids = {image.id for own in found.values() for image in own}
    for image in images.relabelled(connection, [batch.id for batch in batch_of.values()], split=Split.TEST):
        held = line[-1].merged.get(image.label, image.label)
        if held in found and image.id not in ids:
            found[held].append(image)
    return tuple(
        tuple(replace(image, label=label) for label in sorted(task) for image in _in_order(found.get(label, ())))
        for task in line[-1].tasks
    )


def as_known(found: Iterable[Image], merged: Mapping[str, str]) -> tuple[Image, ...]:
    """Images as of the classes that a version knows them as, by its ``merged``."""
    return tuple(replace(image, label=merged[image.label]) if image.label in merged else image for image in found)


def _in_order(found: Iterable[Image]) -> list[Image]:
    return sorted(found, key=lambda image: (image.digest, image.filename))
