"""Networks by name: ResNet-32 for small images, and every classifier torchvision has."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.networks.families import Family, family_of
from trainer.networks.incremental import IncrementalNetwork
from trainer.networks.limits import HeadKind, check_form, check_heads, unknown
from trainer.networks.resnet32 import ResNet32

# Backbones of ours, constructed with the number of channels, in the order of `names`.
OWN: dict[str, Callable[..., nn.Module]] = {"resnet32": ResNet32}
CLASSIFIER = "fc"  # the name that heads of a backbone of ours have in weight files
TORCHVISION_CLASSES = 1000  # torchvision's default; identifies the layer to remove
# What networks raise for images that they cannot take; the type depends on the family.
REFUSALS = (RuntimeError, ValueError, AssertionError)


def names() -> tuple[str, ...]:
    """Every name that `build` knows, the default first."""
    import torchvision  # imported late: it takes a second, and backbones of ours do not need it

    return (*OWN, *torchvision.models.list_models(module=torchvision.models))


def build(
    name: str,
    *,
    channels: int,
    image_size: int,
    task_sizes: Sequence[int] = (),
    rows: Sequence[Sequence[int]] | None = None,
    head_kind: HeadKind = "linear",
) -> IncrementalNetwork:
    """A freshly initialised network in training mode, with a head for each of ``task_sizes``.

    ``rows`` are those of each class, by task (`IncrementalNetwork.add_task`).
    With cosine heads the last activation is removed (`families`). Weights are drawn from torch's global generator: seed
    it first. Raises ValueError for an unknown name, and for a network that cannot take such images or such heads.
    """
    network = _probed(name, channels=channels, image_size=image_size, head_kind=head_kind)
    for task, classes in enumerate(task_sizes):
        network.add_task(classes, rows=rows[task] if rows is not None else None)
    return network.train()


def _probed(name: str, *, channels: int, image_size: int, head_kind: HeadKind) -> IncrementalNetwork:
    """The network without heads; a dry pass of one image shows that it works, and how many features it gives."""
    check_form(channels=channels, image_size=image_size)
    if name not in OWN and name not in names():
        raise unknown(name, names())
    family = family_of(name)
    check_heads(name, head_kind, known=family is not None)
    try:
        backbone, classifier = without_classifier(name, channels=channels, image_size=image_size)
        if head_kind == "cosine" and family is not None:
            family.unrectify(backbone)
        features, _ = dry_pass(backbone, torch.zeros(1, channels, image_size, image_size), family)
    except REFUSALS as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"network {name!r} cannot take {image_size} × {image_size} images: {reason}") from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise ValueError(f"network {name!r} does not give one feature vector an image and cannot be used")
    return IncrementalNetwork(
        backbone,
        name=name,
        channels=channels,
        image_size=image_size,
        dim=features.shape[1],
        classifier=classifier,
        stage=family.stage if family else None,
        head_kind=head_kind,
    )


def dry_pass(backbone: nn.Module, images: Tensor, family: Family | None) -> tuple[object, torch.Size | None]:
    """The backbone's output in evaluation mode, and the shape of its last stage's maps; None for an unknown stage."""
    shapes: list[torch.Size] = []
    stage = backbone.get_submodule(family.stage) if family else nn.Identity()
    watch = stage.register_forward_hook(lambda _stage, _inputs, maps: shapes.append(maps.shape))
    with torch.no_grad():
        features = backbone.eval()(images)
    watch.remove()
    return features, shapes[0] if shapes else None


def without_classifier(name: str, *, channels: int, image_size: int) -> tuple[nn.Module, str]:
    """The named network without its last layer, and the path of that layer; raises `REFUSALS`."""
    if name in OWN:
        return OWN[name](channels=channels), CLASSIFIER
    import torchvision

    network: nn.Module = torchvision.models.get_model(name, weights=None, **options(name, image_size))
    if channels != 3:
        path, conv = _find(network, nn.Conv2d, lambda conv: conv.in_channels == 3, last=False)
        network.set_submodule(path, _with_channels(conv, channels))
    # a linear layer everywhere but in SqueezeNet, which classifies with a 1 × 1 convolution before pooling
    path, _ = _find(network, (nn.Linear, nn.Conv2d), lambda layer: _outputs(layer) == TORCHVISION_CLASSES, last=True)
    network.set_submodule(path, nn.Identity())
    return network, path


def options(name: str, image_size: int) -> dict[str, Any]:
    """Constructor arguments of the families that need some: the image size, or no auxiliary classifiers."""
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name == "maxvit_t":
        return {"input_size": (image_size, image_size)}
    if name in {"googlenet", "inception_v3"}:
        return {"aux_logits": False, "init_weights": True}
    return {}


def _find(network: nn.Module, kind: Any, fits: Callable[[Any], bool], *, last: bool) -> tuple[str, Any]:
    """Path and module of the first or last layer of ``kind`` that ``fits``; raises ValueError if there is none."""
    found = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, kind) and fits(layer)]
    if not found:
        raise ValueError("its layers are not those of a known classifier")
    return found[-1 if last else 0]


def _outputs(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _with_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A first convolution like ``conv`` for another number of channels, initialised after He et al. 2015."""
    new = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new
