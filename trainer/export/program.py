"""The file ``network.pt2`` of a version: a torch.export program, compared with the network before anyone may use it."""

import copy
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.export import agreement
from trainer.export.agreement import Outputs
from trainer.export.executable import NotExportable, headline
from trainer.export.graph import Core, attention_in_parts, quiet
from trainer.networks import EvaluationTransform, IncrementalNetwork
from trainer.networks.manifest import OUTPUTS

_EXAMPLES = 2  # images; an exporter takes the number 1 for a constant (pytorch#157621)


def write_program(
    path: Path,
    network: IncrementalNetwork,
    transform: EvaluationTransform,
    *,
    pixels: Tensor,
    describe: Callable[[Mapping[str, Any]], Mapping[str, str]],
) -> dict[str, Any]:
    """Write a program of a network to ``path``, once it agrees with the network on ``pixels``.

    ``pixels`` are uint8 [images, channels, size, size], and so is the program's input; its outputs are those of
    network.onnx. ``describe`` makes the file's own entries from the record of the comparison. Returns that record: the
    number of images compared and the largest difference of a probability. Raises `NotExportable`, and `Disagreement`
    if what could be exported computes something else. The network is left as it is.
    """
    network = copy.deepcopy(network).cpu().eval()
    size = transform.image_size
    example = torch.zeros(_EXAMPLES, transform.channels, size, size, dtype=torch.uint8)
    try:
        with torch.no_grad(), attention_in_parts(), quiet():
            images = {0: torch.export.Dim("images")}
            program = torch.export.export(_Program(network, transform), (example,), dynamic_shapes={"pixels": images})
            loaded = _read_back(program)
    except Exception as error:  # exporters raise almost anything
        raise NotExportable(headline(error)) from error

    def run(part: Tensor) -> Outputs:
        with torch.inference_mode():
            return {name: output.numpy() for name, output in zip(OUTPUTS, loaded(part), strict=True)}

    found = agreement.compare(run, network, transform, pixels)
    record = {"images": found.images, "largest_difference": found.largest_difference}
    torch.export.save(program, path, extra_files=dict(describe(record)))
    return record


class _Program(nn.Module):
    """From decoded pixels, uint8 [images, channels, size, size], to logits, features and probabilities."""

    def __init__(self, network: IncrementalNetwork, transform: EvaluationTransform) -> None:
        super().__init__()
        self.core = Core(network, transform).eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor, Tensor] = self.core(pixels.float() / 255)
        return outputs


def _read_back(program: torch.export.ExportedProgram) -> nn.Module:
    """The program as a reader of the file gets it."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    return torch.export.load(buffer).module()
