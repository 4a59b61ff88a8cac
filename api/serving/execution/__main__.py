"""`python -m api.serving.execution`: compile the backbone of a make of network to a library, by Inductor.

Compiling takes half a minute of a processor and holds the interpreter lock for seconds at a time. So it has a process
of its own, with the lowest priority if the order says ``yields``. The order is a line of JSON on standard input. The
end of standard input means that the parent has ended: then this process and the compilers it started end, too.

The weights are inputs of the library, not constants in it. So one library serves all versions of a make, each with its
own weights, and this process needs none.
"""

import json
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from api.serving.execution.libraries import weights
from trainer.networks import build

EXAMPLES = 16  # images of the example minibatch; the library takes any other number


class _Functional(nn.Module):
    """A backbone as a function of images and weights."""

    def __init__(self, backbone: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.__dict__["_backbone"] = backbone  # not a submodule: its weights would become constants
        self._names = names

    def forward(self, images: Tensor, *given: Tensor) -> Tensor:
        result: Tensor = functional_call(self.__dict__["_backbone"], dict(zip(self._names, given, strict=True)), images)
        return result


def compile_backbone(network_name: str, *, channels: int, image_size: int, head_kind: Any, target: Path) -> None:
    """Write the library to ``target``; ``target.with_suffix('.pt2')`` is made and left behind."""
    network = build(network_name, channels=channels, image_size=image_size, task_sizes=[1], head_kind=head_kind)
    backbone = network.eval().requires_grad_(False).to(memory_format=torch.channels_last).backbone
    given = weights(backbone)
    images = torch.randn(EXAMPLES, channels, image_size, image_size).contiguous(memory_format=torch.channels_last)
    shapes = {"images": {0: torch.export.Dim("count", min=1)}, "given": tuple({} for _ in given)}
    with torch.no_grad():
        program = torch.export.export(
            _Functional(backbone, list(given)), (images, *given.values()), dynamic_shapes=shapes, strict=False
        )
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(target.with_suffix(".pt2")),
            inductor_configs={"cpp.dynamic_threads": True},  # as many as the caller allows, not as this process has
        )
    with zipfile.ZipFile(package) as archive:
        (library,) = (name for name in archive.namelist() if name.endswith(".so"))
        target.write_bytes(archive.read(library))


def main() -> None:
    """Compile what standard input describes."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if asked["yields"] and sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # processor time that is idle: nothing waits for it
    compile_backbone(
        asked["network"],
        channels=asked["channels"],
        image_size=asked["image_size"],
        head_kind=asked["head_kind"],
        target=Path(asked["target"]),
    )


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
