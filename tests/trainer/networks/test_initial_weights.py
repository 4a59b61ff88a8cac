"""Initial weights from files people have."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.networks import IncrementalNetwork, build, load_initial_weights
from trainer.networks.initial_weights import DENSENET_NAME


@pytest.fixture
def network() -> IncrementalNetwork:
    torch.manual_seed(1)
    return build("resnet18", channels=3, image_size=32, task_sizes=(3,))


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """As torchvision's own weight files are: the whole classifier of 1000 classes."""
    torch.manual_seed(2)
    state: dict[str, Tensor] = torchvision.models.resnet18(weights=None).state_dict()
    return state


def expect_loaded(network: IncrementalNetwork, published: dict[str, Tensor]) -> None:
    for name, tensor in network.backbone.state_dict().items():
        torch.testing.assert_close(tensor, published[name], rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_published_file_fills_the_backbone_and_leaves_the_heads(suffix, network, published, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save_file(published, path) if suffix == ".safetensors" else torch.save(published, path)
    head = network.heads[0].weight.detach().clone()
    load_initial_weights(network, path)
    expect_loaded(network, published)
    assert torch.equal(network.heads[0].weight, head)


def test_a_checkpoint_of_data_parallel_training_is_understood(network, published, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in published.items()}, "epoch": 90}, path)
    load_initial_weights(network, path)
    expect_loaded(network, published)


@pytest.mark.parametrize("head_kind", ["linear", "cosine"])
def test_a_version_of_this_service_is_understood_and_its_heads_ignored(head_kind, network, tmp_path):
    torch.manual_seed(5)
    other = build("resnet18", channels=3, image_size=32, task_sizes=(7, 2), head_kind=head_kind)
    save_file(other.state_dict(), tmp_path / "weights.safetensors")
    load_initial_weights(network, tmp_path / "weights.safetensors")
    expect_loaded(network, dict(other.backbone.state_dict()))
    assert network.task_sizes == (3,)


def test_old_names_of_densenet_files_are_understood():
    old = "features.denseblock1.denselayer2.norm.1.running_mean"
    assert DENSENET_NAME.sub(r"\1\2", old) == "features.denseblock1.denselayer2.norm1.running_mean"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv1.weight"), "missing: conv1.weight"),
        (lambda state: state.update({"layer9.weight": torch.zeros(1)}), "unexpected: layer9.weight"),
        (
            lambda state: state.update({"bn1.bias": torch.zeros(5)}),
            r"of another shape: bn1.bias is \[5\], expected \[64\]",
        ),
    ],
    ids=["missing", "unexpected", "mismatched"],
)
def test_a_file_that_does_not_fit_is_refused_by_tensor_and_changes_nothing(
    change, message, network, published, tmp_path
):
    state = dict(published)
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_initial_weights(network, tmp_path / "weights.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_deeper_networks_file_is_refused(network, tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(ValueError, match=r"resnet34.pth does not fit the network 'resnet18'.*and \d+ more"):
        load_initial_weights(network, tmp_path / "resnet34.pth")


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_refused_and_never_run(network, tmp_path):
    torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth is no safetensors file and no .pth of tensors only"):
        load_initial_weights(network, tmp_path / "weights.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_pickled_module_is_refused(network, tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="tensors only"):
        load_initial_weights(network, tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all" * 10])
def test_other_files_are_refused(content, name, network, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load_initial_weights(network, tmp_path / name)


def test_a_missing_file_is_said_to_be_missing(network, tmp_path):
    for name in ("weights.pth", "weights.safetensors"):
        with pytest.raises(FileNotFoundError):
            load_initial_weights(network, tmp_path / name)
