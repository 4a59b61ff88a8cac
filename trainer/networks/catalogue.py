"""Networks by name: ResNet-32 for small images, and every classifier torchvision has."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainer.networks.families import KNOWN, Family, family_of
from trainer.networks.heads import HeadKind
from trainer.networks.incremental import IncrementalNetwork
from trainer.networks.resnet32 import ResNet32

REGNETS = ("regnet_x_", "regnet_y_")  # prefixes of equal length
TORCHVISION_CLASSES = 1000  # torchvision's default; identifies the layer to remove


def names() -> tuple[str, ...]:
    """Every name that `build` knows, the default first."""
    import torchvision  # imported late: it takes a second, and ResNet-32 does not need it

    return ("resnet32", *torchvision.models.list_models(module=torchvision.models))


def build(
    name: str, *, channels: int, image_size: int, task_sizes: Sequence[int] = (), head_kind: HeadKind = "linear"
) -> IncrementalNetwork:
    """A freshly initialised network in training mode, with a head for each of ``task_sizes``.

    With cosine heads the last activation is removed (`families`). Weights are drawn from torch's global generator: seed
    it first. Raises ValueError for an unknown name, and for a network that cannot take such images or such heads.
    """
    network = _probed(name, channels=channels, image_size=image_size, head_kind=head_kind)
    for classes in task_sizes:
        network.add_task(classes)
    return network.train()


def check(
    name: str, *, channels: int, image_size: int, head_kind: HeadKind = "linear", attention: bool = False
) -> None:
    """Raise the errors that `build` would raise; most networks are checked without allocating their weights.

    With ``attention``, also raises ValueError for a network that cannot give Grad-CAM maps.
    """
    probed = partial(_probed, channels=channels, image_size=image_size, head_kind=head_kind, attention=attention)
    if name == "resnet32":  # building it is faster than the imports that the meta device needs
        probed(name)
    elif name.startswith(REGNETS) and name in names():
        # RegNets compute their widths from values of tensors, and a meta tensor has none. The smallest RegNet is
        # checked for all: they differ in width and depth, not in the images they accept. The largest needs gigabytes.
        smallest = f"{name[: len(REGNETS[0])]}400mf"
        try:
            probed(smallest)
        except ValueError as error:
            raise ValueError(str(error).replace(smallest, name)) from error
    else:
        with torch.device("meta"):
            probed(name)


def _probed(
    name: str, *, channels: int, image_size: int, head_kind: HeadKind, attention: bool = False
) -> IncrementalNetwork:
    """The network without heads; a dry pass of one image shows that it works, and how many features it gives."""
    if channels not in {1, 3}:
        raise ValueError(f"a network takes 1 channel (grey) or 3 (colour), got {channels}")
    if image_size < 1:
        raise ValueError(f"the image size is a positive number of pixels, got {image_size}")
    if name != "resnet32" and name not in names():
        close = ", ".join(get_close_matches(name, names())) or "none is close"
        raise ValueError(f"no network {name!r} (similar: {close}); known are {', '.join(names())}")
    family = family_of(name)
    if head_kind == "cosine" and family is None:
        raise ValueError(
            f"network {name!r} cannot have cosine heads: its last activation would have to be removed, and where that "
            f"is is known of {KNOWN} only"
        )
    if attention and family is None:
        raise ValueError(
            f"network {name!r} cannot be asked for attention maps: the last convolutional stage, which Grad-CAM looks "
            f"at, is known of {KNOWN} only"
        )
    try:
        backbone, classifier = _resnet32(channels) if name == "resnet32" else _torchvision(name, channels, image_size)
        if head_kind == "cosine" and family is not None:
            family.unrectify(backbone)
        features, maps = _dry_pass(backbone, torch.zeros(1, channels, image_size, image_size), family)
    except (RuntimeError, ValueError, AssertionError) as error:  # the type depends on the family
        reason = str(error).partition("\n")[0]
        raise ValueError(f"network {name!r} cannot take {image_size} × {image_size} images: {reason}") from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise ValueError(f"network {name!r} does not give one feature vector an image and cannot be used")
    if attention and maps is not None and maps[-2:].numel() == 1:
        raise ValueError(
            f"network {name!r} cannot be asked for attention maps of {image_size} × {image_size} images: its last "
            "stage has a single position there, and all maps of one position are the same; use a larger image_size, "
            "or resnet32"
        )
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


def _dry_pass(backbone: nn.Module, images: Tensor, family: Family | None) -> tuple[object, torch.Size | None]:
    """The backbone's output in evaluation mode, and the shape of its last stage's maps; None for an unknown stage."""
    shapes: list[torch.Size] = []
    stage = backbone.get_submodule(family.stage) if family else nn.Identity()
    watch = stage.register_forward_hook(lambda _stage, _inputs, maps: shapes.append(maps.shape))
    with torch.no_grad():
        features = backbone.eval()(images)
    watch.remove()
    return features, shapes[0] if shapes else None


def _resnet32(channels: int) -> tuple[nn.Module, str]:
    return ResNet32(channels=channels), "fc"


def _torchvision(name: str, channels: int, image_size: int) -> tuple[nn.Module, str]:
    """The named network without its last layer, and the path of that layer."""
    import torchvision

    network: nn.Module = torchvision.models.get_model(name, weights=None, **_options(name, image_size))
    if channels != 3:
        path, conv = _find(network, nn.Conv2d, lambda conv: conv.in_channels == 3, last=False)
        network.set_submodule(path, _with_channels(conv, channels))
    # a linear layer everywhere but in SqueezeNet, which classifies with a 1 × 1 convolution before pooling
    path, _ = _find(network, (nn.Linear, nn.Conv2d), lambda layer: _outputs(layer) == TORCHVISION_CLASSES, last=True)
    network.set_submodule(path, nn.Identity())
    return network, path


def _options(name: str, image_size: int) -> dict[str, Any]:
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
