"""Which images a version keeps for rehearsal."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.learning.data import ImageSet, positions_by_class
from trainer.recipes import Selection

_TIE = 1e-10  # far above a score's rounding error, far below the difference that distinct float32 features make


def herd(features: Tensor, *, count: int, kept: Tensor | None = None) -> list[int]:
    """Positions in ``features`` [candidates, dim] of a class's next ``count`` exemplars, most wanted first.

    Rebuffi et al., arXiv:1611.07725, Algorithm 4: each step takes the candidate that brings the mean of all exemplars
    nearest to the class mean, on L2-normalised features. ``kept`` [kept, dim] are the exemplars there already: they
    count in the class mean and in the mean of the exemplars. Means are not normalised again, as in the authors'
    program, so that a mean is compared with a mean. No candidate is taken twice. Of equal candidates the first is
    taken. With fewer than ``count`` candidates all are ranked. Raises ValueError for features that are not finite.
    """
    candidates = _normalised(features)
    exemplars = _normalised(features[:0] if kept is None else kept)
    total = exemplars.sum(0)
    mean = (total + candidates.sum(0)) / max(len(exemplars) + len(candidates), 1)
    lengths = candidates.square().sum(1)  # 1, or 0 for features that are all 0
    chosen: list[int] = []
    for size in range(len(exemplars) + 1, len(exemplars) + 1 + min(count, len(candidates))):
        # ‖mean − (total + x) / size‖², times −size², without the terms that are the same for every candidate x.
        scores = 2 * (candidates @ (size * mean - total)) - lengths
        # Scores of equal features can differ in their last bits, by how rows are divided among threads.
        best = int((scores >= scores.max() - _TIE).nonzero()[0])
        chosen.append(best)
        total += candidates[best]
        lengths[best] = torch.inf  # never again
    return chosen


def _normalised(features: Tensor) -> Tensor:
    """L2-normalised in float64, so that the ranking does not depend on the number of threads; on the same device."""
    if features.ndim != 2 or not bool(features.isfinite().all()):
        raise ValueError(f"expected finite features [images, dim], got {list(features.shape)} or some not finite")
    return F.normalize(features.detach().double(), dim=1)


def choose(
    *,
    candidates: ImageSet,
    kept: ImageSet | None,
    share: int,
    selection: Selection,
    seed: int,
    features: Callable[[ImageSet], Tensor],
) -> dict[int, tuple[str, ...]]:
    """Exemplars of every class, at most ``share`` each: image ids by target, most wanted first.

    ``kept``, the parent's exemplars, come first and in their order, so a smaller share drops the least wanted. Free
    places go to ``candidates`` of the class, by herding or at random, without replacement. ``features`` maps images to
    [images, dim]. It is called for herding only, once for each class that has free places and candidates.
    """
    generator = torch.Generator().manual_seed(seed)
    nowhere = torch.empty(0, dtype=torch.int64)
    kept = kept or candidates.select(nowhere)
    held = frozenset(kept.ids)
    old, new = positions_by_class(kept.targets), positions_by_class(candidates.targets)
    chosen: dict[int, tuple[str, ...]] = {}
    for target in sorted(old.keys() | new.keys()):
        staying = kept.select(old.get(target, nowhere)[:share])
        fresh = [position for position in new.get(target, nowhere).tolist() if candidates.ids[position] not in held]
        places = share - len(staying)
        if not fresh or not places:
            added: list[int] = []
        elif selection == "random":
            added = torch.randperm(len(fresh), generator=generator)[:places].tolist()
        else:
            shown = staying + candidates.select(torch.tensor(fresh))
            there, free = features(shown).tensor_split([len(staying)])
            added = herd(free, count=places, kept=there)
        chosen[target] = (*staying.ids, *(candidates.ids[fresh[rank]] for rank in added))
    return chosen
