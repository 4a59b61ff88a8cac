"""A folded network gives what the network in evaluation mode gives, with fewer layers."""

import pytest
import torch
from torch import Tensor, nn

from trainer.networks import IncrementalNetwork, build, folded
from trainer.networks.gradcam import attention_maps
from trainer.networks.resnet32 import ResNet32


def lived_in(name: str, *, size: int = 32, channels: int = 3, head_kind="linear") -> IncrementalNetwork:
    """A network whose normalisation has statistics, scale and shift of its own in every channel."""
    torch.manual_seed(0)
    network = build(name, channels=channels, image_size=size, task_sizes=(3, 2), head_kind=head_kind)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            unsettle(module)
    return network.eval()


def unsettle(normalisation: nn.BatchNorm2d) -> None:
    assert normalisation.running_mean is not None
    assert normalisation.running_var is not None
    nn.init.uniform_(normalisation.running_mean, -0.5, 0.5)
    nn.init.uniform_(normalisation.running_var, 0.5, 2.0)


def images(network: IncrementalNetwork, count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, network.channels, network.image_size, network.image_size, generator=generator)


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet32", 0),
        ("resnet18", 0),
        ("resnet50", 0),
        ("mobilenet_v2", 0),
        ("efficientnet_b0", 0),
        ("regnet_y_400mf", 0),
        ("densenet121", 62),  # before the convolution there, more often than not
        ("convnext_tiny", 0),  # which has none
    ],
)
def test_outputs_are_the_same_and_normalisation_is_gone(name, left):
    network = lived_in(name)
    made = folded(network)
    assert normalisations(made) == left
    with torch.no_grad():
        expected, given = network.observe(images(network)), made.observe(images(network))
    scale = expected.features.abs().max()
    torch.testing.assert_close(given.features / scale, expected.features / scale, rtol=0, atol=2e-5)
    torch.testing.assert_close(given.logits / scale, expected.logits / scale, rtol=0, atol=2e-5)


@pytest.mark.parametrize("head_kind", ["linear", "cosine"])
def test_it_looks_at_the_same_places(head_kind):
    network = lived_in("resnet32", head_kind=head_kind)
    shown = images(network)
    with torch.no_grad():
        plain, made = (one.observe(shown, stage=True) for one in (network, folded(network)))
        classes = plain.logits.argmax(1)
        torch.testing.assert_close(
            attention_maps(made, classes=classes), attention_maps(plain, classes=classes), rtol=1e-3, atol=1e-5
        )


def test_the_network_itself_is_left_as_it_was():
    network = lived_in("resnet32", channels=1).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = folded(network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not made.training
    assert not any(parameter.requires_grad for parameter in made.parameters())


class Twice(ResNet32):
    """Uses the output of its first convolution beside its normalisation, so that the two cannot be one."""

    def forward(self, shown: Tensor) -> Tensor:
        convolved = self.conv1(shown)
        features: Tensor = self.stages(self.bn1(convolved) + convolved).mean(dim=(2, 3))
        return features


def test_where_folding_would_change_the_outputs_nothing_is_folded():
    torch.manual_seed(0)
    network = lived_in("resnet32")
    network.backbone = Twice(channels=3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            unsettle(module)
    made = folded(network)
    assert normalisations(made) == normalisations(network) == 31
    with torch.no_grad():
        assert torch.equal(made(images(network)), network.eval()(images(network)))
