"""Networks by name, and how they grow."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainer.networks import IncrementalNetwork, build, names
from trainer.networks.resnet32 import BasicBlock, ResNet32

ROOT = Path(__file__).parents[3]


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_resnet32_has_the_papers_depth_and_size():
    network = build("resnet32", channels=3, image_size=32, task_sizes=(10,))
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 32
    # He et al. 2016, Table 6: 0.46 million parameters with ten classes. Exactly: convolutions, two numbers a channel
    # of each batch normalisation, and the classifier.
    convolutions = 9 * (3 * 16 + 10 * 16 * 16 + 16 * 32 + 9 * 32 * 32 + 32 * 64 + 9 * 64 * 64)
    normalisations = 2 * (11 * 16 + 10 * 32 + 10 * 64)
    assert parameters_of(network) == convolutions + normalisations + 64 * 10 + 10 == 464_154


def test_a_shortcut_subsamples_and_fills_new_channels_with_zeros():
    block = BasicBlock(2, 4, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # the residual branch gives zero: what is left is the shortcut
    images = torch.rand(1, 2, 5, 5)
    expected = torch.cat([images[:, :, [0, 2, 4]][..., [0, 2, 4]], torch.zeros(1, 2, 3, 3)], dim=1)
    torch.testing.assert_close(block(images), expected)


def test_convolutions_start_with_the_deviation_of_he_et_al():
    torch.manual_seed(0)
    weight = ResNet32(channels=3).state_dict()["stages.2.1.conv1.weight"]
    assert float(weight.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("size", [8, 28, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet32_takes_any_small_size_and_grey_images(channels, size):
    network = build("resnet32", channels=channels, image_size=size, task_sizes=(2, 1))
    assert network.features(torch.rand(2, channels, size, size)).shape == (2, 64)


def test_names_begin_with_the_default_and_hold_torchvisions_classifiers():
    assert names()[0] == "resnet32"
    assert {"resnet18", "vit_b_16", "efficientnet_b0"} <= set(names())


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "dim", "classifier"),
    [
        ("resnet18", 1, 32, 512, "fc"),
        ("resnet18", 3, 32, 512, "fc"),
        ("mobilenet_v3_small", 1, 32, 1024, "classifier.3"),
        ("shufflenet_v2_x0_5", 3, 48, 1024, "fc"),
        ("squeezenet1_1", 1, 32, 512, "classifier.1"),
        ("googlenet", 3, 32, 1024, "fc"),
        ("regnet_y_400mf", 1, 32, 440, "fc"),
        pytest.param("densenet121", 1, 32, 1024, "classifier", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 3, 32, 1280, "classifier.1", marks=pytest.mark.slow),
        pytest.param("swin_t", 1, 32, 768, "head", marks=pytest.mark.slow),
    ],
)
def test_torchvision_networks_lose_their_classifier_and_learn(name, channels, image_size, dim, classifier):
    network = build(name, channels=channels, image_size=image_size, task_sizes=(3,))
    assert (network.dim, network.classifier, network.channels) == (dim, classifier, channels)
    assert all(1000 not in parameter.shape for parameter in network.parameters())
    logits = network(torch.rand(4, channels, image_size, image_size))
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    first = next(network.backbone.parameters())
    assert first.shape[1] == channels
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_a_vision_transformer_is_built_for_the_image_size():
    with torch.device("meta"):
        assert build("vit_b_16", channels=3, image_size=48).image_size == 48
        with pytest.raises(ValueError, match="'vit_b_16' cannot take 40 × 40 images"):
            build("vit_b_16", channels=3, image_size=40)


SLOW_TO_BUILD = ("regnet", "efficientnet", "densenet")  # seconds each; their smallest ones are built elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if not name.startswith(SLOW_TO_BUILD)])
def test_torchvisions_names_can_be_built_at_their_usual_size(name):
    with torch.device("meta"):
        assert build(name, channels=3, image_size=224).dim > 0


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("resnet33", 3, 32), r"no network 'resnet33' \(similar: .*resnet32.*\); known are resnet32, alexnet"),
        (("alexnet", 3, 32), "'alexnet' cannot take 32 × 32 images: .*too small"),
        (("inception_v3", 3, 32), "'inception_v3' cannot take 32 × 32 images"),
        (("maxvit_t", 3, 32), "'maxvit_t' cannot take 32 × 32 images"),
        (("resnet32", 4, 32), "1 channel .* or 3 .*, got 4"),
        (("resnet32", 3, 0), "positive number of pixels, got 0"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(wanted, message):
    name, channels, image_size = wanted
    with pytest.raises(ValueError, match=message):
        build(name, channels=channels, image_size=image_size)


def test_building_is_repeatable_from_the_seed():
    torch.manual_seed(3)
    first = build("resnet32", channels=1, image_size=16, task_sizes=(2,)).state_dict()
    torch.manual_seed(3)
    second = build("resnet32", channels=1, image_size=16, task_sizes=(2,)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert int(first["backbone.bn1.num_batches_tracked"]) == 0  # the dry pass leaves no trace


def test_growing_keeps_what_the_old_heads_say():
    network = build("resnet32", channels=3, image_size=32, task_sizes=(2, 1)).eval()
    images = torch.rand(3, 3, 32, 32)
    before = network(images)
    network.add_task(4)
    after = network.eval()(images)
    assert network.task_sizes == (2, 1, 4)
    assert after.shape == (3, 7)
    torch.testing.assert_close(after[:, :3], before)
    torch.testing.assert_close(after[:, 3:], network.heads[2](network.features(images)))


def test_a_new_head_has_the_precision_of_the_backbone():
    network = build("resnet32", channels=1, image_size=16).double()
    network.add_task(2)
    assert network(torch.rand(1, 1, 16, 16, dtype=torch.float64)).dtype == torch.float64


def test_a_network_without_tasks_gives_features_but_no_logits():
    network = build("resnet32", channels=1, image_size=16)
    assert network.task_sizes == ()
    assert network.features(torch.rand(2, 1, 16, 16)).shape == (2, 64)
    with pytest.raises(RuntimeError, match="no task yet"):
        network(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="at least one class, got 0"):
        network.add_task(0)


def test_resnet32_is_learned_from_real_gradients():
    torch.manual_seed(0)
    network: IncrementalNetwork = build("resnet32", channels=1, image_size=8, task_sizes=(2,))
    images, targets = torch.rand(16, 1, 8, 8), torch.arange(16) % 2
    images[targets == 1, :, :4] += 1.0  # the classes differ in the brightness of the upper half
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(15):
        optimiser.zero_grad()
        F.cross_entropy(network(images), targets).backward()
        optimiser.step()
    assert network(images).argmax(1).eq(targets).all()


def test_the_package_needs_torch_pillow_and_safetensors_only():
    # A version's folder is enough: nothing of numpy, storage, pydantic or torchvision is loaded for ResNet-32.
    program = """
import sys
for name in ("numpy", "pydantic", "storage", "losses", "sqlalchemy", "torchvision", "sklearn"):
    sys.modules[name] = None  # an import of it fails
from trainer.networks import build
build("resnet32", channels=3, image_size=32, task_sizes=(2,))
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
