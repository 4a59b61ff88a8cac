"""Heads, one a task: linear layers, or rows of which only the direction counts."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HeadKind = Literal["linear", "cosine"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
SMALLEST_NORM = 1e-6  # vectors shorter than this count as this long, which bounds gradients; those of 0 have cosine 0


class CosineHead(nn.Linear):
    """Cosines between features and a row for each class, in −1 … 1, without bias.

    Hou et al., Learning a unified classifier incrementally via rebalancing (LUCIR), CVPR 2019, §3.2, Eq. 4, but for
    the scale η: the network has one for all its heads. Rows start as those of a linear layer do, uniform within
    ±1/√dim, as in the authors' program.
    """

    def __init__(
        self, dim: int, classes: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """``dim`` features to as many cosines as there are ``classes``."""
        super().__init__(dim, classes, bias=False, device=device, dtype=dtype)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, dim] to [batch, classes]."""
        return cosines(features, rows=self.weight)


def cosines(features: Tensor, *, rows: Tensor) -> Tensor:
    """⟨f̂, ŵ⟩ [batch, classes] of features [batch, dim] and rows [classes, dim], in float32 at least."""
    with torch.autocast(features.device.type, enabled=False):  # 8 bits of bfloat16 cannot tell near angles apart
        return F.linear(_directions(features), _directions(rows))


def _directions(vectors: Tensor) -> Tensor:
    """Vectors [n, dim] at length 1; by a square root that also has a second derivative at 0, unlike a norm."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    squares = vectors.square().sum(dim=1, keepdim=True)
    return vectors * squares.clamp_min(SMALLEST_NORM**2).rsqrt()
