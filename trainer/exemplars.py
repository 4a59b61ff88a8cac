"""Which images a version keeps for rehearsal."""

from collections.abc import Mapping, Sequence

import torch


def choose_random(
    *, candidates: Sequence[str], kept: Sequence[str], share: int, generator: torch.Generator
) -> tuple[str, ...]:
    """Ids of one class's exemplars, most wanted first.

    What the parent kept stays first in its order, so a shrinking share drops the least wanted; free places are drawn
    from ``candidates`` without replacement.
    """
    present = set(kept)
    fresh = [image for image in candidates if image not in present]
    drawn = torch.randperm(len(fresh), generator=generator).tolist()
    return (*kept, *(fresh[position] for position in drawn))[:share]


def choose(
    *, candidates: Mapping[str, Sequence[str]], kept: Mapping[str, Sequence[str]], share: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """Exemplars of every class, ``share`` each: image ids by label."""
    generator = torch.Generator().manual_seed(seed)
    labels = [*kept, *(label for label in candidates if label not in kept)]
    return {
        label: choose_random(
            candidates=candidates.get(label, ()), kept=kept.get(label, ()), share=share, generator=generator
        )
        for label in labels
    }
