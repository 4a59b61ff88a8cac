"""A network that grows: one backbone, and a head of its own for each task."""

import torch
from torch import Tensor, nn


class IncrementalNetwork(nn.Module):
    """Backbone and heads; the logits of all tasks stand beside each other in the order the tasks came."""

    head_kind = "linear"

    def __init__(
        self, backbone: nn.Module, *, name: str, channels: int, image_size: int, dim: int, classifier: str
    ) -> None:
        """Wrap a backbone that maps [batch, channels, image_size, image_size] to [batch, dim].

        ``classifier`` is the path the backbone's own last layer had, under which weight files hold it.
        """
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList()
        self.name = name
        self.channels = channels
        self.image_size = image_size
        self.dim = dim
        self.classifier = classifier

    @property
    def task_sizes(self) -> tuple[int, ...]:
        """Classes of each task, oldest first."""
        return tuple(head.out_features for head in self.heads if isinstance(head, nn.Linear))

    def add_task(self, classes: int) -> None:
        """Append a freshly initialised head, on the device and in the precision of the backbone."""
        if classes < 1:
            raise ValueError(f"a task has at least one class, got {classes}")
        like = next(self.backbone.parameters())
        self.heads.append(nn.Linear(self.dim, classes, device=like.device, dtype=like.dtype))

    def features(self, images: Tensor) -> Tensor:
        """Normalised images [batch, channels, size, size] to [batch, dim]."""
        features: Tensor = self.backbone(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of every task."""
        if not self.heads:
            raise RuntimeError("the network has no task yet: call add_task first")
        features = self.features(images)
        return torch.cat([head(features) for head in self.heads], dim=1)
