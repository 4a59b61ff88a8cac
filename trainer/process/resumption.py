"""How an attempt resumes the training of an earlier attempt, and leaves its own checkpoints for the next.

A checkpoint can be used only by the same training. So it holds a digest of each part that determines the training's
result. If one part differs (the head was moved, the software updated, an image erased), training starts over.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from storage.errors import BlobDamaged, BlobMissing
from trainer.learning import checkpoint
from trainer.learning.checkpoint import Checkpoint
from trainer.process.context import AttemptContext
from trainer.process.job import Job
from trainer.process.protocol import CHECKPOINT

TRAINING = "training"  # key of the digests in a checkpoint's state
COST_SHARE = 0.05  # largest share of training time for writing checkpoints, whatever interval is set


@dataclass(frozen=True)
class Earlier:
    """The checkpoint of an earlier attempt, which may be of another training."""

    file: Path
    state: Mapping[str, Any]

    @property
    def threads(self) -> int:
        """Threads it was computed with; another number of threads changes the last bits of sums."""
        return int(self.state["execution"]["threads"])


def find(job: Job, context: AttemptContext, device: torch.device) -> Earlier | None:
    """Fetch the checkpoint in the increment's row; None, with a note of the reason, if it cannot be used here."""
    stored = job.increment.checkpoint
    if stored is None:
        return None
    file = context.folder / "earlier.safetensors"
    try:
        context.blobs.fetch(stored.sha256, file)
        earlier = Earlier(file, checkpoint.read_state(file))
        computed_on = earlier.state["execution"]["device"]
    except (BlobMissing, BlobDamaged) as error:
        why = error.detail
    except (SafetensorError, ValueError, KeyError) as error:
        why = f"the checkpoint of epoch {stored.epoch} cannot be read: {error!r}"
    else:
        if computed_on == device.type:
            return earlier
        why = f"the checkpoint of epoch {stored.epoch} was computed on {computed_on}, not on {device.type}"
    _start_over(context, why)
    return None


class Resumption:
    """The checkpoints of one attempt; see `trainer.learning.checkpoint.Checkpoints`."""

    def __init__(self, job: Job, context: AttemptContext, earlier: Earlier | None, training: Mapping[str, str]) -> None:
        """Start from ``earlier`` if it is of this training; otherwise note the reason, and reset the threads."""
        self._context = context
        self._attempt = job.claim.attempt
        self._training = training
        self._earlier = earlier
        self._written = time.monotonic()
        self._cost = 0.0  # seconds that writing the last checkpoint took
        if earlier is not None and (other := _differences(earlier.state.get(TRAINING), training)):
            self._earlier = None
            torch.set_num_threads(context.threads)
            _start_over(context, f"the checkpoint of epoch {earlier.state['epoch']} is of another {', '.join(other)}")

    @property
    def epoch(self) -> int | None:
        """Epochs that are complete already; None without a checkpoint to go on from."""
        return int(self._earlier.state["epoch"]) if self._earlier is not None else None

    def load(self) -> Checkpoint | None:
        """The checkpoint to go on from, if any."""
        self._written = time.monotonic()
        return checkpoint.read(self._earlier.file) if self._earlier is not None else None

    def save(self, made: Checkpoint) -> None:
        """Write it into the folder and tell the worker, unless the last checkpoint is too recent."""
        began = time.monotonic()
        wanted = self._context.settings.checkpoint_seconds
        if began - self._written < (max(wanted, self._cost / COST_SHARE) if wanted else 0.0):
            return
        # The attempt's number makes the bytes differ between attempts, so that each deletes only its own checkpoints.
        state = {**made.state, TRAINING: dict(self._training), "attempt": self._attempt}
        try:
            checkpoint.write(self._context.folder / CHECKPOINT, Checkpoint(made.tensors, state))
        except (OSError, SafetensorError) as error:  # a full disk must not end the training
            self._context.report.note(f"the checkpoint of epoch {made.epoch} could not be written: {error}")
        else:
            self._context.report.checkpoint(epoch=made.epoch)
        self._written = time.monotonic()
        self._cost = self._written - began


def _start_over(context: AttemptContext, reason: str) -> None:
    context.report.note(f"training starts over: {reason}")


def _differences(there: Any, wanted: Mapping[str, str]) -> list[str]:
    """Names of the parts in which two trainings differ."""
    found: Mapping[str, str] = there if isinstance(there, dict) else {}
    return [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
