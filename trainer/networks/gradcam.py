"""Where a network looks: Grad-CAM maps of its last convolutional stage."""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.networks import Observed


def attention_maps(observed: Observed, *, classes: Tensor) -> Tensor:
    """ReLU(Σ_k α_k·A_k) [batch, h, w] for one class of each sample, ``classes`` int64 [batch]; not normalised.

    A is the activation of the stage. α_k is the gradient of the class's logit with respect to A_k, averaged over
    positions: Selvaraju et al., arXiv:1610.02391, Eq. 1 and 2. Costs one backward pass from the logits to the stage.
    The maps are differentiable, also through α, unless the network was observed without gradients. Raises ValueError if
    no stage was observed.
    """
    activation, scores = observed.stage, observed.scores
    if activation is None or scores is None:
        raise ValueError("no stage was observed: call observe(images, stage=True)")
    precision = torch.promote_types(activation.dtype, torch.float32)
    lasting = torch.is_grad_enabled() and observed.logits.requires_grad
    chosen = torch.zeros_like(scores).scatter(1, classes[:, None], 1)
    with (
        torch.set_grad_enabled(lasting),
        torch.autocast(activation.device.type, enabled=False),  # each backward step in its forward step's precision
    ):
        # The gradient of the minibatch's sum holds each sample's own gradient: no layer after the stage mixes samples.
        (gradient,) = torch.autograd.grad(scores, activation, chosen, retain_graph=True, create_graph=lasting)
        weights = gradient.to(precision).mean(dim=(2, 3), keepdim=True)
        return F.relu((weights * activation.to(precision)).sum(dim=1))
