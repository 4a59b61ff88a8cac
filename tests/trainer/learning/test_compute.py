"""In which precision a training is computed, and that it is the one that was asked for."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainer.learning.compute import ComputeConfig, bfloat16_is_native, choose
from trainer.networks import build

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(precision):
    assert choose(CPU, precision) == ComputeConfig(device="cpu", precision=precision, threads=torch.get_num_threads())


def test_auto_is_bfloat16_where_the_processor_says_it_has_it():
    """Against what the kernel reports, not what torch does."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    assert bfloat16_is_native(CPU) is native
    assert choose(CPU, "auto").precision == ("bfloat16" if native else "float32")


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_convolutions_are_computed_in_it_and_weights_stay_float32(precision, dtype):
    network = build("resnet32", channels=3, image_size=8, task_sizes=(2,))
    seen: list[torch.dtype] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with choose(CPU, precision).autocast():
        network(torch.randn(2, 3, 8, 8)).float().sum().backward()
    assert set(seen) == {dtype}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in network.parameters() if parameter.grad is not None} == {torch.float32}


def test_a_record_reads_as_it_was_written():
    execution = ComputeConfig(device="cuda", precision="bfloat16", threads=3)
    assert ComputeConfig.from_json(execution.to_json()) == execution
