"""Which images a version keeps for rehearsal."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.learning.data import ImageSet, positions_by_class
from trainer.recipes import Selection

_TIE = 1e-10  # well above what rounding does to a score, well below what tells two float32 features apart


def herd(features: Tensor, *, count: int, kept: Tensor | None = None) -> list[int]:
    """Positions in ``features`` [candidates, dim] of a class's next ``count`` exemplars, most wanted first.

    Rebuffi et al., arXiv:1611.07725, Algorithm 4: each time the candidate that brings the mean of all exemplars nearest
    to the class mean, on L2-normalised features. The class mean is that of the candidates and of ``kept``
    [kept, dim], the exemplars there already, with which the sum begins. Means are not normalised again, as in the
    authors' program: what comes near a mean is a mean. No candidate is taken twice, of equal ones the first; with
    fewer than ``count`` all are ranked. Raises ValueError for features that are not finite.
    """
    candidates = _normalised(features)
    exemplars = _normalised(features[:0] if kept is None else kept)
    total = exemplars.sum(0)
    mean = (total + candidates.sum(0)) / max(len(exemplars) + len(candidates), 1)
    lengths = candidates.square().sum(1)  # 1, but for features of zeros
    chosen: list[int] = []
    for size in range(len(exemplars) + 1, len(exemplars) + 1 + min(count, len(candidates))):
        # ‖mean − (total + x) / size‖², times −size² and without what is the same for every candidate x.
        scores = 2 * (candidates @ (size * mean - total)) - lengths
        # Equal features need not score equally to the last bit: it depends on their place among the threads.
        best = int((scores >= scores.max() - _TIE).nonzero()[0])
        chosen.append(best)
        total += candidates[best]
        lengths[best] = torch.inf  # never again
    return chosen


def _normalised(features: Tensor) -> Tensor:
    """In float64, where the order does not depend on how many threads add up; on the device they are on."""
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
    """Exemplars of every class, ``share`` each: image ids by target, most wanted first.

    What the parent ``kept`` stays first in its order, so a shrinking share drops the least wanted; free places go to
    the class's own ``candidates`` by herding or at random, without replacement. ``features`` maps images to
    [images, dim] and is asked for herding only, class by class, where there are free places.
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
