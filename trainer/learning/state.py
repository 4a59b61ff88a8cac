"""The state of a training between two epochs: how it is saved and restored."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.learning.checkpoint import Checkpoint
from trainer.learning.compute import ComputeConfig
from trainer.learning.minibatches import Minibatches
from trainer.learning.schedules import Schedule


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes during a training: weights, momentum, rates, states of random generators."""

    student: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    minibatches: Minibatches
    execution: ComputeConfig

    def checkpoint(self, *, epoch: int, phase: int = 0) -> Checkpoint:
        """The state after an epoch, without copying tensors; ``epoch`` counts from 1 over all phases.

        If a phase ends early, ``epoch`` is the last one that the phase could have had.
        """
        schedule, schedule_tensors = self.schedule.state()
        optimiser = self.optimiser.state_dict()
        state = {
            "epoch": epoch,
            "phase": phase,
            "execution": self.execution.to_json(),
            "schedule": schedule,
            "optimiser": optimiser["param_groups"],
        }
        tensors = {
            **_named("student", self.student.state_dict()),
            **_named("schedule", schedule_tensors),
            **_named("random", self.minibatches.state() | _torch_generators()),
        }
        for place, buffers in optimiser["state"].items():
            tensors |= _named(f"optimiser.{place}", {k: v for k, v in buffers.items() if isinstance(v, Tensor)})
        return Checkpoint(tensors, state)

    def resume(self, saved: Checkpoint) -> None:
        """Restore all but the weights, which must be restored before the fixed parts are determined."""
        self._restore_optimiser(saved)
        self.schedule.restore(saved.state["schedule"], _under("schedule", saved.tensors))
        generators = _under("random", saved.tensors)
        self.minibatches.restore(generators)
        _restore_torch_generators(generators)

    def _restore_optimiser(self, saved: Checkpoint) -> None:
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Any]] = {}
        for place, parameter in enumerate(parameters):
            if buffers := _under(f"optimiser.{place}", saved.tensors):
                # In the memory format of the parameter: a fused step reads both in the order of their memory.
                state[place] = {name: torch.empty_like(parameter).copy_(value) for name, value in buffers.items()}
        self.optimiser.load_state_dict({"state": state, "param_groups": saved.state["optimiser"]})


def weights_of(saved: Checkpoint) -> dict[str, Tensor]:
    """The student's weights and statistics, by their names in its state_dict."""
    return _under("student", saved.tensors)


def _torch_generators() -> dict[str, Tensor]:
    """State of torch's own generators, which dropout and stochastic depth draw from."""
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _restore_torch_generators(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Any) -> dict[str, Tensor]:
    """The tensors whose names have a prefix, by their names without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
