"""The protocol between worker, fork server and training process.

The worker starts the fork server with arguments and asks it for processes with single bytes. It sends a training
process one `Order`, as a line, and reads its messages, one per line, until the process ends with one of three statuses.
The results are then in the attempt's folder. This module does not import torch, because the worker does not.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

# Between worker and fork server: arguments of the fork server, requests, and answers
SERVE, TRAIN, LOADED, FRESH = "serve", "train", "loaded", "fresh"
FORK, LET_GO = b"f", b"g"
NUMBER = struct.Struct("=i")  # a pid, or an exit status as `subprocess` gives it: negative for a signal

# Exit statuses of a training process
SUCCEEDED = 0  # outcome and version are in the folder
REFUSED = 3  # it can never succeed; the failure in the folder has the reason
WORKER_GONE = 77  # the worker has died, and nobody would publish the result

# In the attempt's folder
VERSION = "version"  # the version's files
CHECKPOINT = "checkpoint.safetensors"  # the latest one
_OUTCOME = "outcome.json"
_FAILURE = "failure.json"

NOTE = 10_000  # characters of a note, at most
StageName = Literal[
    "starting", "ingesting", "loading", "training", "evaluating", "selecting", "writing", "publishing"
]  # the first and the last are the worker's own

Record = TypeVar("Record")


class Unreadable(ValueError):
    """One end has written something that the other end cannot read."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order to a training process: the first line it reads."""

    increment: str
    attempt: int
    folder: str
    settings: Mapping[str, Any]  # `Settings` as JSON
    spawned_at: float  # seconds since 1970

    def encode(self) -> bytes:
        """The order as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Order":
        """The inverse of `encode`; raises `Unreadable`."""
        return _record(cls, _object(line), what="an order")


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a training process: a JSON object with its kind and its fields."""

    kind: ClassVar[str]

    def data(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def encode(self) -> str:
        """The message as a line of JSON."""
        return json.dumps({"kind": self.kind} | self.data()) + "\n"


@dataclass(frozen=True, slots=True)
class StageBegun(Message):
    """A stage begins."""

    kind: ClassVar[str] = "stage"
    stage: StageName
    resumed_from_epoch: int | None = None  # set if training goes on from a checkpoint


@dataclass(frozen=True, slots=True)
class ProgressMade(Message):
    """How far a stage is."""

    kind: ClassVar[str] = "progress"
    stage: StageName
    step: int | None = None
    steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StillAlive(Message):
    """Work goes on, without any news."""

    kind: ClassVar[str] = "alive"


@dataclass(frozen=True, slots=True)
class EpochDone(Message):
    """An epoch is complete."""

    kind: ClassVar[str] = "epoch"
    epoch: int
    epochs: int
    loss: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointLeft(Message):
    """The checkpoint of an epoch is in the folder, for the worker to take."""

    kind: ClassVar[str] = "checkpoint"
    epoch: int


@dataclass(frozen=True, slots=True)
class Note(Message):
    """A text for the worker's log."""

    kind: ClassVar[str] = "note"
    text: str


MESSAGES: Mapping[str, type[Message]] = {
    message.kind: message for message in (StageBegun, ProgressMade, StillAlive, EpochDone, CheckpointLeft, Note)
}


def decode(line: bytes) -> Message:
    """The message in a line; raises `Unreadable`, with the line, if it is not a message of this protocol."""
    said = _object(line)
    kind = said.pop("kind", None)
    message = MESSAGES.get(kind) if isinstance(kind, str) else None
    if message is None:
        raise Unreadable(f"{line[:100]!r} is no message: its kind is {str(kind)[:20]!r}")
    return _record(message, said, what=f"a message of kind {kind!r}")


@dataclass(frozen=True, slots=True)
class Made:
    """The outcome that a successful training process leaves in the folder, beside the version's files."""

    number: int
    parent: int | None
    tasks: Sequence[Sequence[str]]
    data_digest: str
    code_version: str
    metrics: Mapping[str, Any]
    exemplars: Mapping[str, Sequence[str]]
    seconds: Mapping[str, float]  # by stage

    def write(self, folder: Path) -> None:
        """Write it into the attempt's folder."""
        (folder / _OUTCOME).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "Made":
        """The inverse of `write`; raises `Unreadable`, and OSError if there is none."""
        return _record(cls, _object((folder / _OUTCOME).read_bytes()), what="an outcome")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an increment can never succeed."""

    reason: str

    def write(self, folder: Path) -> None:
        """Write it into the attempt's folder."""
        (folder / _FAILURE).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "Failure":
        """The inverse of `write`; raises `Unreadable`, and OSError if there is none."""
        return _record(cls, _object((folder / _FAILURE).read_bytes()), what="a failure")


def _object(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{line[:100]!r} is no JSON: {type(error).__name__}") from error
    if not isinstance(said, dict):
        raise Unreadable(f"{line[:100]!r} is no object")
    return said


def _record(record: type[Record], said: dict[str, Any], *, what: str) -> Record:
    """A record from an object's fields; raises `Unreadable` if one is missing, unknown or of another type."""
    known = {field.name: field.type for field in fields(record)}  # type: ignore[arg-type]
    if strange := sorted(said.keys() - known.keys()):
        raise Unreadable(f"{what} has no {strange[0][:100]!r}")
    for name, value in said.items():
        if not _fits(value, known[name]):
            raise Unreadable(f"{what} cannot have {name} = {repr(value)[:100]}")
    try:
        return record(**said)
    except TypeError as error:
        raise Unreadable(f"{what} is incomplete: {error}") from error


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if isinstance(value, bool):
        return False  # a bool is an int to Python, and no field here is a bool
    if get_origin(kind) in {Mapping, Sequence}:
        kind = dict if get_origin(kind) is Mapping else list
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))
