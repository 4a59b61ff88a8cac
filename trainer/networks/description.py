"""What a file says of the version that it was exported from: entries of text, for readers who have nothing else."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

NOT_STATED = "not stated"


def description(
    *,
    model: str,
    number: int,
    tasks: Sequence[Sequence[str]],
    transform: Mapping[str, Any],
    agreement: Mapping[str, Any],
    digests: Mapping[str, str],
    created_at: str,
) -> dict[str, str]:
    """The entries of an exported version; ``digests`` are those of its files and of its images, by their names here.

    ``agreement`` says on how many images the exported file was compared, and the ``largest_difference`` of a
    probability; empty if it was not. The entries depend on the version alone.
    """
    return {
        "model": model,
        "version": str(number),
        "labels": written([label for task in tasks for label in task]),
        "tasks": written([list(task) for task in tasks]),
        "transform": written(transform),
        "agreement": agreement_of(agreement),
        **digests,
        "created_at": created_at,
        "license": NOT_STATED,
    }


def agreement_of(compared: Mapping[str, Any]) -> str:
    """The entry about a comparison, from the record of it."""
    found = {name: compared[name] for name in ("images", "largest_difference") if name in compared}
    return written(found) if found else NOT_STATED


def written(value: object) -> str:
    """A value as JSON, always the same for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
