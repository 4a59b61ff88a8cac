"""Attention maps against hand calculation and finite differences, and what they cost."""

import copy
from threading import Thread

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.networks import IncrementalNetwork, Observed, build
from trainer.networks.gradcam import attention_maps
from trainer.networks.limits import HeadKind

FAMILY_MEMBERS = [
    "resnet32",
    "resnet18",
    "resnet50",
    "regnet_y_400mf",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
]


def network_of(name: str = "resnet32", *, size: int = 12, head_kind: HeadKind = "linear") -> IncrementalNetwork:
    torch.manual_seed(0)
    return build(name, channels=3, image_size=size, task_sizes=(2, 3), head_kind=head_kind).double()


def images_of(size: int = 12, count: int = 4) -> Tensor:
    return torch.rand(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


CLASSES = torch.tensor([3, 0, 4, 1])


def observed(network: IncrementalNetwork, images: Tensor) -> tuple[Observed, Tensor]:
    """With the stage, which is given once more by itself."""
    seen = network.observe(images, stage=True)
    assert seen.stage is not None
    return seen, seen.stage


def gradient_of(network: nn.Module, path: str) -> Tensor:
    gradient = network.get_parameter(path).grad
    assert gradient is not None
    return gradient


def test_a_linear_head_over_averaged_maps_weighs_them_by_its_row():
    # y_c = Σ_k w_ck · mean A_k + b_c, so ∂y_c/∂A_k is w_ck / (h·w) everywhere, and so is its mean.
    network = network_of().eval()
    seen, stage = observed(network, images_of())
    found = attention_maps(seen, classes=CLASSES).detach().numpy()
    rows = np.concatenate([head.get_parameter("weight").detach().numpy() for head in network.heads])
    maps = stage.detach().numpy()
    assert maps.shape == (4, 64, 3, 3)
    expected = np.stack([np.tensordot(rows[c], a, 1) / 9 for c, a in zip(CLASSES.tolist(), maps, strict=True)])
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-12, atol=1e-15)
    assert (found > 0).any()
    assert (found == 0).any()


def rest_of(network: IncrementalNetwork, activation: Tensor) -> Tensor:
    """From the stage to the logits, written out."""
    pooled = activation.mean(dim=(2, 3))
    if network.name == "convnext_tiny":
        norm = network.backbone.get_submodule("classifier.0")
        assert isinstance(norm, nn.LayerNorm)
        centred = pooled - pooled.mean(dim=1, keepdim=True)
        deviation = (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
        return network.logits(centred / deviation * norm.weight + norm.bias)
    if network.name == "mobilenet_v3_small":
        for path in ("classifier.0", "classifier.1"):
            pooled = network.backbone.get_submodule(path)(pooled)
    return network.logits(pooled)


@pytest.mark.parametrize("head_kind", ["linear", "cosine"])
@pytest.mark.parametrize(("name", "size"), [("resnet32", 12), ("mobilenet_v3_small", 64), ("convnext_tiny", 64)])
def test_channels_are_weighed_by_what_a_change_of_them_does_to_the_logit(name, size, head_kind):
    network = network_of(name, size=size, head_kind=head_kind)
    network(images_of(size))  # with its initial statistics MobileNet's features all but vanish
    seen, stage = observed(network.eval(), images_of(size, 2))
    found = attention_maps(seen, classes=CLASSES[:2]).detach()
    step = 1e-6
    with torch.no_grad():
        expected = []
        for activation, target in zip(stage, CLASSES.tolist(), strict=False):
            channels = torch.eye(len(activation), dtype=torch.float64)[:, :, None, None] * step
            rise = (
                rest_of(network, activation + channels)[:, target] - rest_of(network, activation - channels)[:, target]
            )
            positions = activation[0].numel()  # a change of a whole map at once: the sum over positions
            alpha = rise / (2 * step) / positions
            expected.append((alpha[:, None, None] * activation).sum(0).clamp_min(0))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("head_kind", ["linear", "cosine"])
@pytest.mark.parametrize("moved", ["everything", "heads"])
def test_maps_have_the_gradient_of_finite_differences(moved, head_kind):
    # The heads reach the maps through the weights of the channels alone.
    network = network_of(size=8, head_kind=head_kind).train()
    images, pattern = images_of(8), torch.randn(4, 2, 2, dtype=torch.float64)
    parameters = [p for path, p in network.named_parameters() if moved == "everything" or path.startswith("heads")]
    direction = [torch.randn_like(parameter) / parameter.numel() ** 0.5 for parameter in parameters]

    def term() -> Tensor:
        return (attention_maps(network.observe(images, stage=True), classes=CLASSES) * pattern).sum()

    gradient = torch.autograd.grad(term(), parameters, allow_unused=True)  # the last bias of a linear head is
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True) if g is not None)
    step = 1e-7  # short, as to cross no kink of any ReLU

    def moved_by(length: float) -> float:
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.add_(d, alpha=length)
        value = float(term().detach())
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.sub_(d, alpha=length)
        return value

    assert slope != 0
    assert slope == pytest.approx((moved_by(step) - moved_by(-step)) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("head_kind", ["linear", "cosine"])
@pytest.mark.parametrize("name", FAMILY_MEMBERS)
def test_every_family_gives_each_sample_its_own_map_with_a_gradient(name, head_kind):
    torch.manual_seed(0)
    network = build(name, channels=3, image_size=64, task_sizes=(2, 3), head_kind=head_kind).train()
    seen, stage = observed(network, torch.rand(4, 3, 64, 64))
    (leaked,) = torch.autograd.grad(seen.logits[0].square().sum(), stage, retain_graph=True)
    assert leaked[0].abs().sum() > 0
    assert leaked[1:].eq(0).all()
    found = attention_maps(seen, classes=CLASSES)
    assert found.shape == (4, *stage.shape[2:])
    assert found.shape[1] > 1
    found.square().sum().backward()
    first = next(path for path, _ in network.named_parameters() if path.startswith("backbone"))
    for path in (first, "heads.1.weight"):
        assert gradient_of(network, path).isfinite().all()
        assert gradient_of(network, path).abs().sum() > 0


@pytest.mark.parametrize("frozen", [True, False])
def test_a_teacher_builds_no_graph_of_its_backbone(frozen):
    network = network_of().eval().requires_grad_(not frozen)
    with torch.no_grad():
        seen, stage = observed(network, images_of())
    assert not seen.logits.requires_grad
    assert not seen.features.requires_grad
    assert torch.equal(seen.logits, network(images_of()))
    heads = [] if frozen else list(network.heads.parameters())
    assert seen.scores is not None
    assert {id(leaf) for leaf in leaves_of(seen.scores)} == {id(tensor) for tensor in (stage, *heads)}
    assert not attention_maps(seen, classes=CLASSES).requires_grad


def test_a_frozen_network_begins_its_graph_at_the_stage_though_gradients_are_enabled():
    network = network_of().eval()
    network.backbone.requires_grad_(False)
    seen = network.observe(images_of(), stage=True)
    attention_maps(seen, classes=CLASSES).sum().backward()
    assert gradient_of(network, "heads.0.weight").abs().sum() > 0  # through the weights of the channels
    assert all(parameter.grad is None for parameter in network.backbone.parameters())


def leaves_of(tensor: Tensor) -> list[Tensor]:
    """What a backward pass from the tensor would reach."""
    found, waiting, met = [], [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found


def test_maps_are_the_same_with_and_without_gradients_and_may_be_made_twice():
    network = network_of().eval()
    with_graph = attention_maps(network.observe(images_of(), stage=True), classes=CLASSES)
    with torch.no_grad():
        seen = network.observe(images_of(), stage=True)
        for _ in range(2):
            assert torch.equal(attention_maps(seen, classes=CLASSES), with_graph)
        other = attention_maps(seen, classes=(CLASSES + 1) % 5)
    assert not torch.equal(other, with_graph)


def test_one_pass_forward_and_none_backward_through_the_backbone():
    network = network_of()
    first = network.backbone.get_submodule("conv1")
    passes: list[str] = []
    first.register_forward_hook(lambda *_: passes.append("forward"))
    first.get_parameter("weight").register_hook(lambda _: passes.append("backward"))
    found = attention_maps(network.observe(images_of(), stage=True), classes=CLASSES)
    assert passes == ["forward"]
    assert all(parameter.grad is None for parameter in network.parameters())
    found.sum().backward()
    assert passes == ["forward", "backward"]


def test_observing_gives_what_the_network_gives_and_leaves_no_trace():
    network = network_of().eval()
    expected = network(images_of())
    for stage in (False, True):
        seen = network.observe(images_of(), stage=stage)
        assert torch.equal(seen.logits, expected)
        assert torch.equal(seen.features, network.features(images_of()))
        assert (seen.stage is not None) == stage
    assert not any(module._forward_hooks for module in network.modules())
    copied = copy.deepcopy(network)
    assert torch.equal(copied.observe(images_of(), stage=True).logits, expected)


def test_two_threads_can_observe_one_network():
    network = network_of().eval()
    other: list[Tensor] = []
    thread = Thread(target=lambda: other.append(observed(network, images_of().flip(0))[1]))

    def interrupt(*_: object) -> None:
        hook.remove()
        thread.start()
        thread.join()

    expected = observed(network, images_of())[1]
    hook = network.backbone.register_forward_hook(interrupt)  # behind the stage, and before the pass is over
    assert torch.equal(observed(network, images_of())[1], expected)
    torch.testing.assert_close(other[0], expected.flip(0))


def test_a_failing_pass_leaves_the_mode_of_gradients_and_no_hook():
    network = network_of()
    network.heads = nn.ModuleList()
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="no task yet"):
            network.observe(images_of(), stage=True)
        assert not torch.is_grad_enabled()
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("head_kind", ["linear", "cosine"])
def test_maps_are_made_in_single_precision_under_autocast(head_kind):
    network = network_of(head_kind=head_kind).float().eval()
    images = images_of().float()
    expected = attention_maps(network.observe(images, stage=True), classes=CLASSES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention_maps(network.observe(images, stage=True), classes=CLASSES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03 * float(expected.detach().max()))
    found.sum().backward()
    assert gradient_of(network.backbone, "conv1.weight").abs().sum() > 0


@pytest.mark.parametrize("head_kind", ["linear", "cosine"])
def test_under_autocast_a_map_is_summed_in_single_precision(head_kind):
    network = network_of(head_kind=head_kind).float().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        seen, stage = observed(network, images_of().float())
        found = attention_maps(seen, classes=CLASSES)
    assert stage.dtype == torch.bfloat16
    # The head works in float32; its gradient reaches the nine positions of the stage in the stage's own precision.
    features = seen.features.float().requires_grad_()
    (gradient,) = torch.autograd.grad(network.logits(features).gather(1, CLASSES[:, None]).sum(), features)
    weights = (gradient.bfloat16() / 9).float()
    expected = (weights[:, :, None, None] * stage.float()).sum(1).clamp_min(0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_stage_that_was_not_observed_is_asked_for():
    seen: Observed = network_of().observe(images_of())
    with pytest.raises(ValueError, match=r"observe\(images, stage=True\)"):
        attention_maps(seen, classes=CLASSES)


def test_inference_mode_is_refused_with_the_way_out():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="under no_grad instead"):
        network_of().observe(images_of(), stage=True)
