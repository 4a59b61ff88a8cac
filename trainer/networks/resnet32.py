"""ResNet-32 for small images: He et al. 2016 (arXiv:1512.03385) §4.2, the form made for CIFAR."""

from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS_PER_STAGE = 5  # depth 6n + 2 = 32
STAGE_CHANNELS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut without parameters (§4.2, option A)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        """Halve height and width when ``stride`` is 2."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] to [batch, out_channels, ⌈h / stride⌉, ⌈w / stride⌉]."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        residual += self.shortcut(x)
        rectified: Tensor = self.activation(residual)
        return rectified

    def shortcut(self, x: Tensor) -> Tensor:
        """The input, subsampled, with zeros for the channels it lacks."""
        if self.stride == 1 and self.new_channels == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet32(nn.Module):
    """The feature extractor, without a classifier: 64 features after global average pooling."""

    dim = STAGE_CHANNELS[-1]

    def __init__(self, *, channels: int) -> None:
        """Initialise the convolutions after He et al. 2015 (arXiv:1502.01852), as the paper does."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, STAGE_CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGE_CHANNELS[0])
        self.stages = nn.Sequential(
            _stage(STAGE_CHANNELS[0], STAGE_CHANNELS[0], stride=1),
            _stage(STAGE_CHANNELS[0], STAGE_CHANNELS[1], stride=2),
            _stage(STAGE_CHANNELS[1], STAGE_CHANNELS[2], stride=2),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """[batch, channels, h, w] to [batch, 64]."""
        maps: Tensor = self.stages(F.relu(self.bn1(self.conv1(images)), inplace=True))
        return maps.mean(dim=(2, 3))


def _stage(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride=stride)
    rest = (BasicBlock(out_channels, out_channels, stride=1) for _ in range(BLOCKS_PER_STAGE - 1))
    return nn.Sequential(first, *rest)
