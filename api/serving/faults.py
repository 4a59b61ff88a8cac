"""Models whose version in service does not load."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.measures import Measures


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the version in service of a model does not load."""

    model: str  # name
    number: int
    reason: str


class Faults:
    """The fault of each model that has one, also as metrics; for one thread at a time."""

    def __init__(self, measures: Measures) -> None:
        """Begin without faults."""
        self._measures = measures
        self._faults: dict[str, Fault] = {}  # by id of the model

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._faults

    def note(self, model_id: str, fault: Fault) -> None:
        """Put a fault in the place of the model's last one."""
        before = self._faults.get(model_id)
        self._faults[model_id] = fault
        self._measures.models_not_current.set(len(self._faults))
        if before is None or before.number != fault.number:
            self._measures.swap_failures.labels(fault.model).inc()

    def end(self, model_id: str) -> None:
        """Forget a model's fault, if it has one."""
        self._faults.pop(model_id, None)
        self._measures.models_not_current.set(len(self._faults))

    def told(self, serving: Mapping[str, int]) -> dict[str, str]:
        """By model name: why its version in service does not answer, and which does, of ``serving`` by model id."""
        told = {}
        for model_id, fault in self._faults.items():
            number = serving.get(model_id)
            instead = "nothing answers" if number is None else f"version {number} answers in its place"
            told[fault.model] = f"{fault.reason} ({instead})"
        return told
