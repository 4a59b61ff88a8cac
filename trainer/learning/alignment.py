"""Weight alignment: correction, after training, of a newest head whose rows are longer than those of old heads."""

import torch
from torch import nn

from trainer.networks import IncrementalNetwork


@torch.no_grad()
def align_weights(network: IncrementalNetwork) -> None:
    """Multiply the newest head's rows by γ, the mean norm of all old rows over that of the new ones, in place.

    Zhao et al., arXiv:1911.07053, "weight aligning": afterwards new and old rows have the same mean norm, and the new
    rows keep their proportions to one another. Biases do not change; neither does a network of a single task. Raises
    ValueError for cosine heads, whose logits do not depend on the length of a row.
    """
    if network.head_kind != "linear":
        raise ValueError(f"weights can be aligned in linear heads, this network's are {network.head_kind}")
    *old, new = (head.weight for head in network.heads if isinstance(head, nn.Linear))
    if old:
        new *= torch.cat(old).norm(dim=1).mean() / new.norm(dim=1).mean()
