"""Checkpoints: the state of a training at the end of an epoch, from which another process gets the same weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # torch takes seconds to import, and the worker, which only reads states, does not need it
    from torch import Tensor

_STATE = "state"  # key of the JSON among the file's metadata


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON.

    The state has at least three keys. ``epoch`` is the number of complete epochs, including those of earlier phases.
    ``phase`` is the index of the phase of the last one. ``execution`` is the `ComputeConfig` that computed them.
    """

    tensors: Mapping[str, "Tensor"]
    state: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """Epochs that are complete, from 1."""
        return int(self.state["epoch"])

    @property
    def phase(self) -> int:
        """The phase under way, from 0; checkpoints of earlier releases name none, as there was only one phase."""
        return int(self.state.get("phase", 0))


class Checkpoints(Protocol):
    """Where an increment's checkpoints are kept."""

    def load(self) -> Checkpoint | None:
        """The last checkpoint of an earlier attempt at the same training; None to begin from the start."""
        ...

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the last checkpoint by this one; a reader finds the old or the new one, never a part."""
        ...


def write(file: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to one file, atomically but not durably: a power cut soon afterwards may lose it."""
    from safetensors.torch import save_file

    unfinished = file.with_name(f".{file.name}.unfinished")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        save_file(tensors, unfinished, metadata={_STATE: json.dumps(dict(checkpoint.state), allow_nan=False)})
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def read(file: Path) -> Checkpoint:
    """The inverse of `write`; raises ValueError or SafetensorError for a file that is not a checkpoint."""
    from safetensors import safe_open

    state = read_state(file)
    with safe_open(file, framework="pt") as opened:
        return Checkpoint({name: opened.get_tensor(name) for name in opened.keys()}, state)  # noqa: SIM118


def read_state(file: Path) -> dict[str, Any]:
    """The state alone, without reading the tensors; raises the errors of `read`."""
    from safetensors import safe_open  # late, so that a worker without it can say what it lacks

    with safe_open(file, framework="numpy") as opened:
        state = json.loads((opened.metadata() or {}).get(_STATE, "null"))
    if not isinstance(state, dict) or "epoch" not in state:
        raise ValueError(f"{file.name} is no checkpoint of a training")
    return state
