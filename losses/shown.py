"""The classes shown, of which an increment has images: labels are learned among them (LOSSES, Notation)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shown:
    """The classes shown, as tensors on a device."""

    classes: Tensor  # int64 [shown], ascending
    places: Tensor  # int64 [classes], position among those shown; −1 for a class that is not shown

    def logits(self, logits: Tensor) -> Tensor:
        """Logits of the classes shown: [batch, classes] to [batch, shown]."""
        return logits.index_select(1, self.classes)

    def targets(self, targets: Tensor) -> Tensor:
        """Indices among all classes to indices among those shown, [batch] both."""
        return self.places[targets]


def shown_classes(counts: Sequence[int] | Tensor, *, classes: int, device: torch.device) -> Shown:
    """The classes whose number of images is not 0; raises ValueError for counts that do not fit ``classes``.

    Cached, so that no step copies them to a GPU and waits. A tensor of counts must be on the CPU.
    """
    each = tuple(counts.tolist() if isinstance(counts, Tensor) else counts)
    if len(each) != classes or min(each) < 0 or not any(each):
        raise ValueError(
            f"shown: expected images of each of {classes} classes, not negative and not all 0, got {list(each)}"
        )
    return _kept(tuple(count > 0 for count in each), device)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # training cannot use tensors created in inference mode
def _kept(is_shown: tuple[bool, ...], device: torch.device) -> Shown:
    classes = torch.tensor(is_shown).nonzero().flatten()
    places = torch.full((len(is_shown),), -1)
    places[classes] = torch.arange(len(classes))
    return Shown(classes=classes.to(device), places=places.to(device))
