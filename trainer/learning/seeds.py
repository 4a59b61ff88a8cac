"""Seeds of all randomness in an increment."""

import hashlib
from dataclasses import dataclass
from typing import Literal

Use = Literal["weights", "order", "augmentation", "exemplars", "free places"]
_SEED_BYTES = 7  # below 2⁶³, which torch's generators take


@dataclass(frozen=True, slots=True)
class Seeds:
    """The recipe's seed and the increment's place in its line of ancestors; every use has its own random sequence.

    With the same sequence for every increment, a new head would start as a copy of the head before it, and images would
    come in the same order.
    """

    seed: int
    t: int  # number of versions before it in its line of ancestors

    def of(self, use: Use, *, phase: int = 0) -> int:
        """The seed of a generator for this use in a phase, counted from 0; in 0 … 2⁵⁶ − 1."""
        named = f"{self.seed} {self.t} {use}{f' {phase}' if phase else ''}".encode()
        return int.from_bytes(hashlib.sha256(named).digest()[:_SEED_BYTES])
