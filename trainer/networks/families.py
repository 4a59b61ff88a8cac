"""Families of networks of known structure: where the last convolutional stage and the last activation are.

Grad-CAM needs that stage. Cosine heads need the activation removed, so that features can be negative (Hou et al.,
CVPR 2019, §4.1). The removal renames no tensor, so weight files fit with and without the activation.
"""

from dataclasses import dataclass

from torch import Tensor, nn


class UnrectifiedBlock(nn.Module):
    """A residual block of torchvision's ResNets without the ReLU after the sum.

    It takes over the layers of a BasicBlock or Bottleneck. Those use one ReLU module both between the convolutions and
    after the sum, so that module itself cannot be removed.
    """

    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    conv3: nn.Module | None  # only in a Bottleneck
    bn3: nn.Module | None
    relu: nn.Module
    downsample: nn.Module | None

    def __init__(self, block: nn.Module) -> None:
        """Take over the layers of ``block``, which must not be used afterwards."""
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
    """Networks of the same structure. In paths, −1 stands for the last child."""

    prefixes: tuple[str, ...]  # of network names
    stage: str  # path of the module that gives the last maps [batch, k, h, w]; no batch normalisation after it
    rectified: str | None  # path of the last activation before the classifier, None where there is none
    instead: type[nn.Module] = nn.Identity  # its replacement, constructed with the replaced module

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
    # the Hardswish between the two layers of the classifier: the features are the first layer's output; the Hardswish
    # of the last convolution is not the last activation and stays
    Family(("mobilenet_v3_",), stage="features", rectified="classifier.1"),
    # the SiLU of the last convolution: as it is never below −0.28, it restricts directions like a ReLU
    Family(("efficientnet_b", "efficientnet_v2_"), stage="features", rectified="features.-1.2"),
    # ends in layer normalisation of the pooled maps: nothing to remove
    Family(("convnext_",), stage="features", rectified=None),
)  # `limits.KNOWN` has them in words


def family_of(name: str) -> Family | None:
    """The family of the network of that name; None if its structure is not known."""
    return next((family for family in FAMILIES if name.startswith(family.prefixes)), None)


def _resolved(path: str, network: nn.Module) -> str:
    """The path with every −1 replaced by the name of the last child."""
    names: list[str] = []
    for part in path.split("."):
        children = [name for name, _ in network.get_submodule(".".join(names)).named_children()]
        names.append(children[-1] if part == "-1" else part)
    return ".".join(names)
