"""Heads, one per task: linear layers, or cosine heads, in which only the direction of a row counts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_NORM = 1e-6  # shorter vectors are divided by this, which bounds gradients; a zero vector has cosine 0


class CosineHead(nn.Linear):
    """Cosines between features and a row for each class, in −1 … 1, without bias.

    Hou et al., Learning a unified classifier incrementally via rebalancing (LUCIR), CVPR 2019, §3.2, Eq. 4, without
    the scale η: the network has one η for all its heads. Rows are initialised like those of a linear layer, uniform
    within ±1/√dim, as in the authors' program.
    """

    def __init__(
        self, dim: int, classes: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Map ``dim`` features to one cosine per class."""
        super().__init__(dim, classes, bias=False, device=device, dtype=dtype)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, dim] to [batch, classes]."""
        return cosines(features, rows=self.weight)


def cosines(features: Tensor, *, rows: Tensor) -> Tensor:
    """⟨f̂, ŵ⟩ [batch, classes] of features [batch, dim] and rows [classes, dim], in float32 at least."""
    with torch.autocast(features.device.type, enabled=False):  # 8 bits of bfloat16 cannot tell near angles apart
        return F.linear(directions(features), directions(rows))


def directions(vectors: Tensor) -> Tensor:
    """Vectors [n, dim] scaled to length 1, by a clamped square root: unlike a norm it has a second derivative at 0."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    squares = vectors.square().sum(dim=1, keepdim=True)
    return vectors * squares.clamp_min(SMALLEST_NORM**2).rsqrt()
