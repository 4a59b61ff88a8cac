"""Heads: linear ones as ever, and cosine ones, which see directions only."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.learning.optimisers import sgd
from trainer.networks import IncrementalNetwork, build, check
from trainer.networks.heads import CosineHead, cosines
from trainer.recipes import Recipe


class Lengths(nn.Module):
    """A backbone that takes the images as features, so that a test can choose these."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(dim))

    def forward(self, images):
        return images * self.factor


def network_of(*task_sizes: int, dim: int = 5, scale: float = 1.0) -> IncrementalNetwork:
    torch.manual_seed(0)
    network = IncrementalNetwork(
        Lengths(dim), name="lengths", channels=1, image_size=1, dim=dim, classifier="none", head_kind="cosine"
    )
    for classes in task_sizes:
        network.add_task(classes)
    network.get_parameter("log_scale").data.fill_(math.log(scale))
    return network


def rows_of(network: IncrementalNetwork) -> Tensor:
    return torch.cat([head.get_parameter("weight").detach() for head in network.heads])


def test_cosine_logits_are_the_scale_times_the_cosine():
    network = network_of(2, 1, 3, scale=3.75).double()
    features = torch.randn(7, 5, dtype=torch.float64)
    found = network(features).detach().numpy()
    rows = rows_of(network).numpy()
    expected = np.array(
        [[3.75 * (f @ w) / (np.linalg.norm(f) * np.linalg.norm(w)) for w in rows] for f in features.numpy()]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e4])
def test_cosine_logits_stay_within_the_scale_and_see_no_lengths(length):
    network = network_of(3, 2, scale=4.0)
    features = torch.randn(50, 5)
    features[:5] = rows_of(network)  # the bound is reached
    logits = network(length * features)
    assert float(logits.detach().abs().max()) == pytest.approx(4.0, rel=1e-6)
    with torch.no_grad():
        network.heads[0].get_parameter("weight").mul_(17.0)
    torch.testing.assert_close(logits, network(features), rtol=1e-5, atol=1e-5)


def test_one_head_gives_its_cosines():
    network = network_of(2, 3, scale=2.0)
    features = torch.randn(4, 5)
    torch.testing.assert_close(2.0 * network.heads[1](features), network(features)[:, 2:])


def test_features_of_zero_have_logits_of_zero_and_finite_derivatives_of_either_order():
    network = network_of(3)
    features = torch.zeros(2, 5, requires_grad=True)
    logits = network(features)
    assert logits.eq(0).all()
    (first,) = torch.autograd.grad(logits[:, 0].sum(), features, create_graph=True)
    second = torch.autograd.grad((first * (features + 1)).sum(), [features, *network.parameters()])
    for derivative in (first, *second):
        assert derivative.isfinite().all()


def test_cosines_are_taken_in_single_precision_under_autocast():
    network = network_of(3, scale=30.0)
    features = torch.randn(20, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network.logits(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, network.logits(features))
    assert network.logits(features.bfloat16()).dtype == torch.float32


def test_a_cosine_network_has_one_scale_which_starts_where_a_softmax_is_not_flat_and_learns():
    network = build("resnet32", channels=1, image_size=8, task_sizes=(2, 3), head_kind="cosine")
    assert network.head_kind == "cosine"
    assert network.scale is not None
    assert network.scale.shape == ()
    assert network.scale.item() == pytest.approx(10.0)
    features = torch.randn(4, 64)
    network.logits(features).sum().backward()
    cosine = F.cosine_similarity(features[:, None], rows_of(network)[None], dim=2)
    learned = network.get_parameter("log_scale")  # d/d log η = η · d/dη
    assert learned.grad is not None
    torch.testing.assert_close(learned.grad, 10 * cosine.sum(), rtol=1e-5, atol=1e-5)


def test_no_step_makes_the_scale_negative():
    network = network_of(3, scale=0.5)
    features = torch.randn(20, 5)
    optimiser = sgd(Recipe(learning_rate=10.0, momentum=0.0), network.parameters(), torch.device("cpu"))
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(network(features), network(features).argmin(1)).backward()  # labels that are always wrong
        optimiser.step()
    assert network.scale is not None
    assert 0 < float(network.scale.detach()) < 0.5


@pytest.mark.parametrize("scale", [1.27, -0.49, 0.0])
def test_weights_of_an_earlier_release_say_what_they_said(scale):
    """They hold η itself, of either sign."""
    network = network_of(2, 3)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items() if name != "log_scale"}
    state["scale"] = torch.tensor(scale)
    before = {name: tensor.clone() for name, tensor in state.items()}
    features = torch.randn(6, 5)
    expected = scale * cosines(features * state["backbone.factor"], rows=rows_of(network))
    network.load_state_dict(state)
    assert network.scale is not None
    assert float(network.scale) > 0
    torch.testing.assert_close(network(features), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())  # what was given stays as it was


def test_the_tensors_of_linear_networks_keep_their_names():
    linear = build("resnet32", channels=1, image_size=8, task_sizes=(2, 1))
    cosine = build("resnet32", channels=1, image_size=8, task_sizes=(2, 1), head_kind="cosine")
    backbone = [f"backbone.{name}" for name in linear.backbone.state_dict()]
    heads = ["heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias"]
    assert list(linear.state_dict()) == backbone + heads
    assert linear.scale is None
    assert set(cosine.state_dict()) == {*backbone, "heads.0.weight", "heads.1.weight", "log_scale"}


def test_rows_start_uniform_within_one_over_the_root_of_the_features():
    torch.manual_seed(0)
    weight = CosineHead(64, 500).weight.detach()
    assert float(weight.abs().max()) == pytest.approx(1 / 8, rel=1e-3)
    assert float(weight.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.02)


def test_growing_keeps_what_the_old_cosine_heads_say():
    network = build("resnet32", channels=1, image_size=8, task_sizes=(2,), head_kind="cosine").double().eval()
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    before = network(images)
    network.add_task(4)
    assert network.task_sizes == (2, 4)
    torch.testing.assert_close(network(images)[:, :2], before)
    assert network(images).dtype == torch.float64


def test_rows_are_described_in_the_order_of_the_logits():
    linear = build("resnet32", channels=1, image_size=8, task_sizes=(2, 1))
    cosine = network_of(2, 1)
    for network in (linear, cosine):
        rows = rows_of(network).numpy()
        np.testing.assert_allclose(network.row_norms().numpy(), np.sqrt((rows**2).sum(1)), rtol=1e-6)
        assert not network.row_norms().requires_grad
    assert cosine.biases() is None
    biases = linear.biases()
    assert biases is not None
    assert biases.tolist() == [value for head in linear.heads for value in head.get_parameter("bias").tolist()]


def test_a_copy_stands_on_its_own():
    network = build("resnet32", channels=1, image_size=8, task_sizes=(2,), head_kind="cosine").eval()
    images = torch.rand(2, 1, 8, 8)
    network.observe(images, stage=True)
    copied = copy.deepcopy(network)
    assert torch.equal(copied(images), network(images))
    with torch.no_grad():
        copied.get_parameter("log_scale").add_(math.log(2))
        copied.heads[0].get_parameter("weight").neg_()
    torch.testing.assert_close(copied(images), -2 * network(images))


def test_a_cosine_network_is_learned_from_real_gradients():
    torch.manual_seed(0)
    network = build("resnet32", channels=1, image_size=8, task_sizes=(2,), head_kind="cosine")
    images, targets = torch.rand(16, 1, 8, 8), torch.arange(16) % 2
    images[targets == 1, :, :4] += 1.0  # the classes differ in the brightness of the upper half
    optimiser = sgd(Recipe(learning_rate=0.05), network.parameters(), torch.device("cpu"))
    for _ in range(15):
        optimiser.zero_grad()
        F.cross_entropy(network(images), targets).backward()
        optimiser.step()
    assert network(images).argmax(1).eq(targets).all()
    assert network.scale is not None
    assert float(network.scale.detach()) != pytest.approx(10.0)


@pytest.mark.parametrize("using", [build, check])
def test_other_heads_are_refused(using):
    with pytest.raises(ValueError, match="heads are linear or cosine, got 'quadratic'"):
        using("resnet32", channels=1, image_size=8, head_kind="quadratic")
