"""A graph computes what its network computes, for any number of images, and says nothing of the machine."""

import getpass
import platform
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from tests.trainer.export.material import SIZE, network, pixels, transform
from trainer.export import graph, write_executable
from trainer.export.agreement import open_session
from trainer.networks import IncrementalNetwork
from trainer.networks.manifest import OUTPUTS

BATCHES = (1, 2, 3, 17, 32)
FAST = (
    "resnet18",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "regnet_x_400mf",
    "efficientnet_b0",
)


def content_of(of: IncrementalNetwork, *, by_dynamo: bool = False) -> bytes:
    made = transform(channels=of.channels, size=of.image_size)
    content: bytes = graph.export(of, made, by_dynamo=by_dynamo).SerializeToString()
    return content


def outputs(session: Any, **inputs: torch.Tensor) -> list[torch.Tensor]:
    found = session.run(list(OUTPUTS), {name: tensor.numpy() for name, tensor in inputs.items()})
    return [torch.from_numpy(output) for output in found]


@torch.inference_mode()
def expected(of: IncrementalNetwork, images: torch.Tensor) -> list[torch.Tensor]:
    observed = of.observe(transform(channels=of.channels, size=of.image_size).normalise(images))
    return [observed.logits, observed.features, observed.logits.softmax(dim=1)]


def assert_same(of: IncrementalNetwork, content: bytes) -> None:
    session = open_session(content, threads=1)
    for images in BATCHES:
        shown = pixels(images, channels=of.channels, size=of.image_size)
        for found, wanted in zip(outputs(session, pixels=shown), expected(of, shown), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("tasks", [(2,), (3, 2, 4)])
def test_logits_features_and_probabilities_are_those_of_the_network(channels, head, tasks):
    of = network(channels=channels, head=head, tasks=tasks)
    assert_same(of, content_of(of))


@pytest.mark.parametrize("name", FAST)
def test_networks_of_torchvision_too(name):
    of = network(name, size=32)
    assert_same(of, content_of(of))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet121", "googlenet", "convnext_tiny", "vit_b_16", "swin_t"])
def test_large_networks_of_torchvision_too(name):
    of = network(name, size=32)
    assert_same(of, content_of(of))


def test_what_the_tracing_exporter_cannot_write_the_other_one_can_and_neither_prints_anything(tmp_path, capfd):
    backbone = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(6), torch.nn.Flatten()
    )
    of = IncrementalNetwork(backbone, name="pooled", channels=3, image_size=SIZE, dim=72, classifier="fc")
    of.add_task(3)
    of.eval()
    with pytest.raises(Exception, match="adaptive_avg_pool2d"):
        content_of(of)
    assert_same(of, content_of(of, by_dynamo=True))
    record = write_executable(tmp_path / "network.onnx", of, transform(), pixels=pixels(3))
    assert record["exporter"] == "dynamo"
    assert capfd.readouterr() == ("", "")


def test_the_other_exporter_gives_the_same_outputs():
    of = network()
    assert_same(of, content_of(of, by_dynamo=True))


def test_black_and_white_images():
    of = network()
    shown = torch.stack([torch.zeros(3, SIZE, SIZE), torch.full((3, SIZE, SIZE), 255.0)]).to(torch.uint8)
    found = outputs(open_session(content_of(of), threads=1), pixels=shown)
    torch.testing.assert_close(found, expected(of, shown), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoded", [0, 1, 3, 5])
def test_a_minibatch_may_hold_pixels_and_values_and_keeps_their_order(decoded):
    of, shown = network(), pixels(5)
    values = shown[decoded:].float() / 255
    found = outputs(open_session(content_of(of), threads=1), pixels=shown[:decoded], values=values)
    torch.testing.assert_close(found, expected(of, shown), rtol=1e-4, atol=1e-4)


def test_the_inputs_and_outputs_are_typed_and_their_number_of_images_is_free():
    session = open_session(content_of(network()), threads=1)
    assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
        ("pixels", "tensor(uint8)", ["images", 3, SIZE, SIZE])
    ]
    assert [(one.name, one.type, one.shape) for one in session.get_overridable_initializers()][-1] == (
        "values",
        "tensor(float)",
        ["more_images", 3, SIZE, SIZE],
    )
    assert [(one.name, one.shape) for one in session.get_outputs()] == [
        ("logits", ["all_images", 5]),
        ("features", ["all_images", 64]),
        ("probabilities", ["all_images", 5]),
    ]


def test_the_opset_is_pinned():
    opsets = {entry.domain: entry.version for entry in onnx.load_from_string(content_of(network())).opset_import}
    assert opsets[""] == graph.OPSET


@pytest.mark.parametrize("by_dynamo", [False, True])
def test_nothing_of_this_machine_is_in_the_file(by_dynamo):
    content = content_of(network(), by_dynamo=by_dynamo)
    folders = {str(Path(graph.__file__).parents[2]), sys.prefix, str(Path(torch.__file__).parent), str(Path.home())}
    traces = [
        *folders,
        "site-packages",
        ".py",
        "stack_trace",
        "pkg.torch",
        "Traceback",
        platform.node(),
        str(Path.cwd()),
    ]
    found = [trace for trace in traces if len(trace) > 2 and trace.encode() in content]
    assert found == []
    assert getpass.getuser() == "root" or getpass.getuser().encode() not in content


def test_two_exports_give_the_same_bytes():
    of = network()
    assert content_of(of) == content_of(of)


def test_the_network_and_the_process_are_left_as_they_are():
    of = network()
    before = {name: tensor.clone() for name, tensor in of.state_dict().items()}
    drawn, threads = torch.random.get_rng_state(), torch.get_num_threads()
    content_of(of)
    content_of(of, by_dynamo=True)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not of.training
    assert all(parameter.requires_grad for parameter in of.parameters())
    assert before.keys() == of.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in of.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()
    of(torch.rand(2, 3, SIZE, SIZE)).sum().backward()  # it can still be trained


def test_channels_last_is_no_difference():
    of = network().to(memory_format=torch.channels_last)
    assert_same(of, content_of(of))
