"""Where training stands at the end of an epoch, so that another process can go on from there to the same weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import safe_open

if TYPE_CHECKING:  # torch takes seconds to load, and the worker, which only reads states, does without
    from torch import Tensor

_STATE = "state"  # key of the JSON among the file's metadata


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON.

    The state has at least ``epoch``, the number of epochs that are complete, those of earlier phases included,
    ``phase``, the index of the one they end in, and ``execution``, how they were computed (`trainer.learning.compute`).
    """

    tensors: Mapping[str, "Tensor"]
    state: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """Epochs that are complete, from 1."""
        return int(self.state["epoch"])

    @property
    def phase(self) -> int:
        """The phase under way, from 0; those of earlier releases name none, as there was but one."""
        return int(self.state.get("phase", 0))


class Checkpoints(Protocol):
    """Where an increment's checkpoints are kept."""

    def load(self) -> Checkpoint | None:
        """The last one of an earlier attempt at the same training; None to begin from the start."""
        ...

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep it in the place of the one before; a reader finds the one or the other, never a part."""
        ...


def write(file: Path, checkpoint: Checkpoint) -> None:
    """Write it into one file, which appears whole or not at all; a power cut right afterwards may still take it."""
    from safetensors.torch import save_file

    unfinished = file.with_name(f".{file.name}.unfinished")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        save_file(tensors, unfinished, metadata={_STATE: json.dumps(dict(checkpoint.state), allow_nan=False)})
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def read(file: Path) -> Checkpoint:
    """The inverse of `write`; raises ValueError or safetensors' own error for a file that is none."""
    state = read_state(file)
    with safe_open(file, framework="pt") as opened:
        return Checkpoint({name: opened.get_tensor(name) for name in opened.keys()}, state)  # noqa: SIM118


def read_state(file: Path) -> dict[str, Any]:
    """Its state alone, in a moment however large the file is; raises what `read` raises."""
    with safe_open(file, framework="numpy") as opened:
        state = json.loads((opened.metadata() or {}).get(_STATE, "null"))
    if not isinstance(state, dict) or "epoch" not in state:
        raise ValueError(f"{file.name} is no checkpoint of a training")
    return state
