"""A network that grows: one backbone, and a head of its own for each task."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from trainer.networks.heads import CosineHead, cosines, directions
from trainer.networks.limits import HEAD_KINDS, HeadKind

# Initial η. With 1, as in the authors' program, the softmax stays flat for ten epochs and η can fall below 0. 10 is
# the initial value of Gidaris and Komodakis (arXiv:1804.09458 §3.2).
FIRST_SCALE = 10.0
SMALLEST_SCALE = 1e-6  # lower bound for |η| read from a file of an earlier release


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Outputs of one forward pass."""

    logits: Tensor  # [batch, classes]
    features: Tensor  # [batch, dim]
    stage: Tensor | None = None  # activation of the last convolutional stage [batch, k, h, w], if requested
    scores: Tensor | None = None  # the logits with their graph back to the stage, whether or not gradients are enabled


class IncrementalNetwork(nn.Module):
    """A backbone with one head per task; the logits of all tasks are concatenated, oldest task first."""

    log_scale: nn.Parameter | None

    def __init__(
        self,
        backbone: nn.Module,
        *,
        name: str,
        channels: int,
        image_size: int,
        dim: int,
        classifier: str,
        stage: str | None = None,
        head_kind: HeadKind = "linear",
    ) -> None:
        """Wrap a backbone that maps [batch, channels, image_size, image_size] to [batch, dim].

        ``classifier`` is the path that the backbone's removed last layer has in weight files. ``stage`` is the path of
        the last convolutional stage; None if that is unknown. Raises ValueError if ``head_kind`` is not one of
        ``HEAD_KINDS``. Cosine heads share one learnable scale η. The parameter is log η, so no optimiser step can make
        η negative.
        """
        if head_kind not in HEAD_KINDS:
            raise ValueError(f"heads are {' or '.join(HEAD_KINDS)}, got {head_kind!r}")
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList()
        self.rows: tuple[tuple[int, ...], ...] = ()  # of each class in its head, by task; more than 1: merged classes
        start = nn.Parameter(torch.tensor(math.log(FIRST_SCALE))) if head_kind == "cosine" else None
        self.register_parameter("log_scale", start)
        self.register_load_state_dict_pre_hook(_scale_as_logarithm)  # type: ignore[no-untyped-call]
        self.name = name
        self.channels = channels
        self.image_size = image_size
        self.dim = dim
        self.classifier = classifier
        self.stage = stage
        self.head_kind = head_kind

    @property
    def scale(self) -> Tensor | None:
        """η of cosine heads, positive; None for linear ones."""
        return None if self.log_scale is None else self.log_scale.exp()

    @property
    def task_sizes(self) -> tuple[int, ...]:
        """Classes of each task, oldest first."""
        return tuple(map(len, self.rows))

    def add_task(self, classes: int, *, rows: Sequence[int] | None = None) -> None:
        """Append a freshly initialised head, on the device and in the precision of the backbone.

        ``rows`` are those of each class, one each by default. Raises ValueError for a task or a class without any.
        """
        counts = (1,) * classes if rows is None else tuple(rows)
        if classes < 1:
            raise ValueError(f"a task has at least one class, got {classes}")
        if len(counts) != classes or min(counts) < 1:
            raise ValueError(f"each of {classes} classes has at least one row, got {counts}")
        like = next(self.backbone.parameters())
        kind = nn.Linear if self.log_scale is None else CosineHead
        self.heads.append(kind(self.dim, sum(counts), device=like.device, dtype=like.dtype))
        self.rows = (*self.rows, counts)

    def features(self, images: Tensor) -> Tensor:
        """Normalised images [batch, channels, size, size] to [batch, dim]."""
        features: Tensor = self.backbone(images)
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Logits [batch, classes] of every task from features [batch, dim]; with cosine heads η·⟨f̂, ŵ⟩."""
        layers = self._layers()
        if (scale := self.scale) is None:
            return self.of_classes(torch.cat([layer(features) for layer in layers], dim=1))
        return self.of_classes(scale * cosines(features, rows=torch.cat([layer.weight for layer in layers])))

    def of_classes(self, scores: Tensor) -> Tensor:
        """Scores [batch, rows] to logits [batch, classes]: of a merged class, the logarithm of Σ exp over its rows.

        So its probability is the sum of those that its classes would have had.
        """
        return pooled(scores, list(chain.from_iterable(self.rows)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of every task."""
        return self.logits(self.features(images))

    def observe(self, images: Tensor, *, stage: bool = False) -> Observed:
        """Logits and features from one forward pass; with ``stage`` also the tensors that `gradcam` needs.

        Grad-CAM differentiates logits with respect to the stage, so the layers after the stage always record a graph.
        Under no_grad, or with a frozen backbone, the graph begins at the stage and holds nothing of the backbone. Under
        no_grad the returned logits and features are detached. With ``stage``, raises ValueError for a network without a
        known stage, and RuntimeError in inference mode.
        """
        if not stage:
            features = self.features(images)
            return Observed(self.logits(features), features)
        if self.stage is None:
            raise ValueError(f"network {self.name!r} has no known convolutional stage to be observed")
        if torch.is_inference_mode_enabled():
            raise RuntimeError("inference mode rules gradients out: observe a stage under no_grad instead")
        seen: list[Tensor] = []
        own = get_ident()

        def keep(_stage: nn.Module, _inputs: object, activation: Tensor) -> Tensor:
            if get_ident() != own:  # another thread's images, through the same network
                return activation
            torch.set_grad_enabled(True)
            seen.append(activation if activation.requires_grad else activation.detach().requires_grad_())
            return seen[-1]

        hook = self.backbone.get_submodule(self.stage).register_forward_hook(keep)
        wanted = torch.is_grad_enabled()
        try:
            with torch.set_grad_enabled(wanted):  # restores the mode that ``keep`` changes
                features = self.features(images)
                scores = self.logits(features)
        finally:
            hook.remove()
        if wanted:
            return Observed(scores, features, seen[-1], scores)
        return Observed(scores.detach(), features.detach(), seen[-1], scores)

    def classifier_rows(self) -> tuple[Tensor, Tensor | None]:
        """Rows [rows, dim] and biases [rows] or None: ``logits = of_classes(classified(features) @ rows.T + biases)``.

        Rows of cosine heads have the length η.
        """
        layers = self._layers()
        rows = torch.cat([layer.weight.detach() for layer in layers])
        if (scale := self.scale) is None:
            return rows, torch.cat([layer.bias.detach() for layer in layers])
        return directions(rows) * scale.detach(), None

    def classified(self, features: Tensor) -> Tensor:
        """What the rows are multiplied by: features [batch, dim], scaled to length 1 for cosine heads."""
        return features if self.log_scale is None else directions(features)

    def row_norms(self) -> Tensor:
        """Euclidean norm of each class's stored row [classes]; cosine heads use only a row's direction.

        Of a merged class, the mean of its rows' norms.
        """
        return self._means(torch.cat([layer.weight.detach().norm(dim=1) for layer in self._layers()]))

    def biases(self) -> Tensor | None:
        """Bias of each class [classes], of a merged one the mean; None for cosine heads, which have none."""
        layers = self._layers()
        return None if self.log_scale is not None else self._means(torch.cat([layer.bias.detach() for layer in layers]))

    def _means(self, of_rows: Tensor) -> Tensor:
        """A value of each row [rows] to its mean over the rows of each class [classes]."""
        parts = of_rows.split(list(chain.from_iterable(self.rows)))  # type: ignore[no-untyped-call]
        return torch.stack([part.mean() for part in parts])

    def _layers(self) -> list[nn.Linear]:
        """The heads, all subclasses of `nn.Linear`; raises RuntimeError before the first task."""
        if not self.heads:
            raise RuntimeError("the network has no task yet: call add_task first")
        return [head for head in self.heads if isinstance(head, nn.Linear)]


def pooled(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Scores [batch, Σ counts] to [batch, classes]: so many neighbours each become the logarithm of their Σ exp."""
    if all(count == 1 for count in counts):
        return scores
    runs = [(single, list(group)) for single, group in groupby(counts, key=lambda count: count == 1)]
    sizes = [size for single, group in runs for size in ([len(group)] if single else group)]
    alone = [kept for single, group in runs for kept in ([True] if single else [False] * len(group))]
    parts = zip(scores.split(sizes, dim=1), alone, strict=True)  # type: ignore[no-untyped-call]
    return torch.cat([part if kept else part.logsumexp(dim=1, keepdim=True) for part, kept in parts], dim=1)


def _scale_as_logarithm(_network: nn.Module, state: dict[str, Any], prefix: str, *_unused: Any) -> None:
    """Replace η in a state of an earlier release, which stored η itself and of either sign, by log η.

    A negative η is made positive, and the sign of every row is changed: the outputs stay the same.
    """
    if (scale := state.pop(f"{prefix}scale", None)) is None:
        return
    state[f"{prefix}log_scale"] = scale.abs().clamp_min(SMALLEST_SCALE).log()
    if scale < 0:
        for name in [name for name in state if name.startswith(f"{prefix}heads.")]:
            state[name] = -state[name]
