"""Which networks can have cosine heads and attention maps, and what their last activation is."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks import IncrementalNetwork, build, check, load_initial_weights, names
from trainer.networks.families import FAMILIES, family_of
from trainer.networks.limits import HeadKind

KNOWN = [name for name in names() if family_of(name)]
OTHERS = [name for name in names() if not family_of(name)]
LARGE = ("regnet_x_16", "regnet_x_32", "regnet_y_16", "regnet_y_32", "regnet_y_128")  # cannot be built without weights


def weightless(name: str, *, head_kind: HeadKind = "linear") -> IncrementalNetwork:
    size = 32 if name == "resnet32" else 224
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return build(name, channels=3, image_size=size, head_kind=head_kind)


def test_the_families_are_those_of_the_contract():
    kinds = ("resnet", "resnext", "wide_resnet", "regnet", "mobilenet", "efficientnet", "convnext")
    assert [name for name in names() if name.startswith(kinds)] == KNOWN
    for family in FAMILIES:
        assert any(family_of(name) is family for name in KNOWN)


@pytest.mark.parametrize("name", [name for name in KNOWN if not name.startswith(LARGE)])
def test_every_member_is_built_both_ways_at_its_usual_size(name):
    linear, cosine = weightless(name), weightless(name, head_kind="cosine")
    shapes = {path: tensor.shape for path, tensor in linear.state_dict().items()}
    assert {path: tensor.shape for path, tensor in cosine.state_dict().items()} == shapes | {"log_scale": ()}
    assert linear.dim == cosine.dim
    assert linear.stage == cosine.stage
    assert linear.stage in dict(linear.backbone.named_modules())


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_network_is_refused_by_name_and_reason(name):
    for using in (build, check):
        with pytest.raises(
            ValueError, match=f"'{name}' cannot have cosine heads: its last activation .* ConvNeXt only"
        ):
            using(name, channels=3, image_size=224, head_kind="cosine")
    with pytest.raises(ValueError, match=f"'{name}' cannot be asked for attention maps: the last convolutional stage"):
        check(name, channels=3, image_size=224, attention=True)


def test_any_other_network_is_still_built_with_linear_heads():
    network = build("squeezenet1_1", channels=3, image_size=32, task_sizes=(2,))
    assert network.stage is None
    with pytest.raises(ValueError, match="'squeezenet1_1' has no known convolutional stage"):
        network.observe(torch.rand(1, 3, 32, 32), stage=True)


@pytest.mark.parametrize(
    ("name", "activation", "lowest"),
    [
        ("resnet32", F.relu, 0.0),
        ("resnet18", F.relu, 0.0),
        ("resnet50", F.relu, 0.0),
        ("resnext50_32x4d", F.relu, 0.0),
        ("regnet_y_400mf", F.relu, 0.0),
        ("mobilenet_v2", F.relu6, 0.0),
        ("mobilenet_v3_small", F.hardswish, -0.375),
        ("efficientnet_b0", F.silu, -0.2785),
    ],
)
def test_nothing_but_the_last_activation_is_missing_under_cosine_heads(name, activation, lowest, tmp_path):
    torch.manual_seed(1)
    linear = build(name, channels=3, image_size=64, task_sizes=(2,))
    images = torch.rand(6, 3, 64, 64)
    linear(images)  # so that the running statistics are not the initial ones
    torch.save(linear.backbone.state_dict(), tmp_path / "weights.pth")
    cosine = build(name, channels=3, image_size=64, task_sizes=(2,), head_kind="cosine")
    load_initial_weights(cosine, tmp_path / "weights.pth")
    with_it, without = linear.eval().observe(images, stage=True), cosine.eval().observe(images, stage=True)
    assert with_it.stage is not None
    assert without.stage is not None
    if name == "mobilenet_v3_small":  # it stands behind pooling and a linear layer there
        torch.testing.assert_close(with_it.stage, without.stage)
        torch.testing.assert_close(with_it.features, activation(without.features))
    else:
        torch.testing.assert_close(with_it.stage, activation(without.stage))
        torch.testing.assert_close(with_it.features, activation(without.stage).mean(dim=(2, 3)))
        torch.testing.assert_close(without.features, without.stage.mean(dim=(2, 3)))
    assert float(with_it.features.detach().min()) >= lowest
    assert float(without.features.detach().min()) < 0


def test_convnext_ends_in_layer_normalisation_and_loses_nothing():
    torch.manual_seed(1)
    linear = build("convnext_tiny", channels=3, image_size=32).eval()
    cosine = build("convnext_tiny", channels=3, image_size=32, head_kind="cosine").eval()
    cosine.backbone.load_state_dict(linear.backbone.state_dict())
    images = torch.rand(2, 3, 32, 32)
    features = cosine.features(images).detach()
    assert torch.equal(features, linear.features(images))
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(2), rtol=0, atol=1e-5)
    assert float(features.min()) < -1


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "regnet_y_400mf", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"]
)
def test_a_published_file_fits_a_cosine_network(name, tmp_path):
    torch.manual_seed(3)
    untouched: nn.Module = torchvision.models.get_model(name, weights=None)
    torch.save(untouched.state_dict(), tmp_path / "published.pth")
    network = build(name, channels=3, image_size=32, task_sizes=(2,), head_kind="cosine")
    load_initial_weights(network, tmp_path / "published.pth")
    published: dict[str, Tensor] = untouched.state_dict()
    for path, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, published[path])
