"""Families of networks whose inside is known: where their last convolutional stage ends, and their last activation.

Grad-CAM looks at that stage, and cosine heads want the activation gone, so that features take negative values too
(Hou et al., CVPR 2019, §4.1). The tensors keep their names, so that weight files fit with or without it.
"""

from dataclasses import dataclass

from torch import Tensor, nn


class UnrectifiedBlock(nn.Module):
    """A residual block of torchvision's ResNets that gives its sum as it is.

    Takes over the layers of a BasicBlock or Bottleneck, whose one ReLU stands between its convolutions too and so
    cannot be taken out by itself.
    """

    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    conv3: nn.Module | None  # of a Bottleneck
    bn3: nn.Module | None
    relu: nn.Module
    downsample: nn.Module | None

    def __init__(self, block: nn.Module) -> None:
        """``block`` lends its layers and is not to be used any more."""
        super().__init__()
        for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "relu", "downsample"):
            self.add_module(name, getattr(block, name, None))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] to [batch, out_channels, ⌈h / stride⌉, ⌈w / stride⌉]."""
        residual: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.conv3 is not None and self.bn3 is not None:
            residual = self.bn3(self.conv3(self.relu(residual)))
        return residual + (x if self.downsample is None else self.downsample(x))


@dataclass(frozen=True, slots=True)
class Family:
    """Networks of one build. In paths −1 is the last child."""

    prefixes: tuple[str, ...]  # of the names
    stage: str  # path of the module that gives the last maps [batch, k, h, w]; no batch normalisation after it
    rectified: str | None  # path of the last activation before the classifier, None where there is none
    instead: type[nn.Module] = nn.Identity  # what stands there without it; made from the module it replaces

    def unrectify(self, network: nn.Module) -> None:
        """Take the last activation out of a network, in place."""
        if self.rectified is not None:
            path = _resolved(self.rectified, network)
            network.set_submodule(path, self.instead(network.get_submodule(path)))


FAMILIES = (
    Family(("resnet32",), stage="stages", rectified="stages.-1.-1.activation"),
    # the ReLU of the last block's sum
    Family(("resnet", "resnext", "wide_resnet"), stage="layer4", rectified="layer4.-1", instead=UnrectifiedBlock),
    Family(("regnet_",), stage="trunk_output", rectified="trunk_output.-1.-1.activation"),
    # the ReLU6 of the last convolution
    Family(("mobilenet_v2",), stage="features", rectified="features.-1.2"),
    # the Hardswish between the two layers of the classifier, the first of which thereby gives the features; the one
    # of the last convolution is not the last activation and stays
    Family(("mobilenet_v3_",), stage="features", rectified="classifier.1"),
    # the SiLU of the last convolution: never below −0.28, it is a ReLU as far as directions go
    Family(("efficientnet_b", "efficientnet_v2_"), stage="features", rectified="features.-1.2"),
    # ends in layer normalisation of the pooled maps: nothing to remove
    Family(("convnext_",), stage="features", rectified=None),
)
KNOWN = "ResNet-32 and torchvision's ResNet, ResNeXt, Wide ResNet, RegNet, MobileNet, EfficientNet and ConvNeXt"


def family_of(name: str) -> Family | None:
    """The family of a network's name, None for one whose inside is not known."""
    return next((family for family in FAMILIES if name.startswith(family.prefixes)), None)


def _resolved(path: str, network: nn.Module) -> str:
    """The path with names in the place of −1."""
    names: list[str] = []
    for part in path.split("."):
        children = [name for name, _ in network.get_submodule(".".join(names)).named_children()]
        names.append(children[-1] if part == "-1" else part)
    return ".".join(names)
