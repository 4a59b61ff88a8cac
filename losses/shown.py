"""Among which classes labels are learned: those of which an increment has images (LOSSES, Notation)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shown:
    """The classes shown, as tensors on a device."""

    classes: Tensor  # int64 [shown], rising
    places: Tensor  # int64 [classes], where each stands among the shown; −1 for those that are not

    def logits(self, logits: Tensor) -> Tensor:
        """[batch, classes] to [batch, shown]."""
        return logits.index_select(1, self.classes)

    def targets(self, targets: Tensor) -> Tensor:
        """Indices among all classes to indices among those shown, [batch] both."""
        return self.places[targets]


def shown_classes(counts: Sequence[int] | Tensor, *, classes: int, device: torch.device) -> Shown:
    """From images of each class, 0 for one that is not shown; raises ValueError where they are not of these classes.

    Kept, so that a GPU is not made to wait for them at every step; a tensor of counts is to lie on the CPU.
    """
    each = tuple(counts.tolist() if isinstance(counts, Tensor) else counts)
    if len(each) != classes or min(each) < 0 or not any(each):
        raise ValueError(
            f"shown: expected images of each of {classes} classes, not negative and not all 0, got {list(each)}"
        )
    return _kept(tuple(count > 0 for count in each), device)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # tensors first needed in inference mode would be of no use to training
def _kept(is_shown: tuple[bool, ...], device: torch.device) -> Shown:
    classes = torch.tensor(is_shown).nonzero().flatten()
    places = torch.full((len(is_shown),), -1)
    places[classes] = torch.arange(len(classes))
    return Shown(classes=classes.to(device), places=places.to(device))
