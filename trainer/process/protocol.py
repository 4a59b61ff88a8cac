"""What worker, fork server and training process agree on.

The worker starts the fork server with arguments and asks it for processes by bytes. It sends a training process its
`Order`, a line, and reads messages, a line each, until that ends with one of three statuses. What was made lies in the
attempt's folder then. Torch-free, as the worker is.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

# Between worker and fork server: its arguments, what is asked, and what is answered
SERVE, TRAIN, LOADED, FRESH = "serve", "train", "loaded", "fresh"
FORK, LET_GO = b"f", b"g"
NUMBER = struct.Struct("=i")  # a pid, or an exit status as `subprocess` gives it: negative for a signal

# Exit statuses of a training process
SUCCEEDED = 0  # outcome and version lie in the folder
REFUSED = 3  # it knows why it can never succeed; the failure in the folder says it
WORKER_GONE = 77  # nobody would publish what it makes

# In the attempt's folder
VERSION = "version"  # the version's files
CHECKPOINT = "checkpoint.safetensors"  # the latest one
_OUTCOME = "outcome.json"
_FAILURE = "failure.json"

NOTE = 10_000  # characters of a note
StageName = Literal[
    "starting", "ingesting", "loading", "training", "evaluating", "selecting", "writing", "publishing"
]  # the first and the last are the worker's own

Record = TypeVar("Record")


class Unreadable(ValueError):
    """What one end has written is nothing that the other end knows."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a training process is to do: the first line it reads."""

    increment: str
    attempt: int
    folder: str
    settings: Mapping[str, Any]  # `Settings` as JSON
    spawned_at: float  # seconds since 1970

    def encode(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Order":
        """The inverse; raises `Unreadable`."""
        return _record(cls, _object(line), what="an order")


@dataclass(frozen=True, slots=True)
class Message:
    """What a training process says: an object with the message's kind and its fields."""

    kind: ClassVar[str]

    def data(self) -> dict[str, Any]:
        """The fields that are said."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def encode(self) -> str:
        """As a line."""
        return json.dumps({"kind": self.kind} | self.data()) + "\n"


@dataclass(frozen=True, slots=True)
class StageBegun(Message):
    """A stage begins."""

    kind: ClassVar[str] = "stage"
    stage: StageName
    resumed_from_epoch: int | None = None  # of a training that goes on from a checkpoint


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
    """There is nothing new, but work goes on."""

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
    """The checkpoint of an epoch lies in the folder, for the worker to take."""

    kind: ClassVar[str] = "checkpoint"
    epoch: int


@dataclass(frozen=True, slots=True)
class Note(Message):
    """Something for the worker's log."""

    kind: ClassVar[str] = "note"
    text: str


MESSAGES: Mapping[str, type[Message]] = {
    message.kind: message for message in (StageBegun, ProgressMade, StillAlive, EpochDone, CheckpointLeft, Note)
}


def decode(line: bytes) -> Message:
    """What a line says; raises `Unreadable`, which names it, for one that no training process of ours writes."""
    said = _object(line)
    kind = said.pop("kind", None)
    message = MESSAGES.get(kind) if isinstance(kind, str) else None
    if message is None:
        raise Unreadable(f"{line[:100]!r} is no message: its kind is {str(kind)[:20]!r}")
    return _record(message, said, what=f"a message of kind {kind!r}")


@dataclass(frozen=True, slots=True)
class Made:
    """What a training process that succeeded leaves in the folder beside the version's files."""

    number: int
    parent: int | None
    tasks: Sequence[Sequence[str]]
    data_digest: str
    code_version: str
    metrics: Mapping[str, Any]
    exemplars: Mapping[str, Sequence[str]]
    seconds: Mapping[str, float]  # by stage

    def write(self, folder: Path) -> None:
        """Leave it."""
        (folder / _OUTCOME).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "Made":
        """The inverse; raises `Unreadable`."""
        return _record(cls, _object((folder / _OUTCOME).read_bytes()), what="an outcome")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an increment can never succeed."""

    reason: str

    def write(self, folder: Path) -> None:
        """Leave it."""
        (folder / _FAILURE).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "Failure":
        """The inverse; raises `Unreadable`."""
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
    """An object's fields as the record's, each of its type, and no others."""
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
        return False  # which Python takes for a number
    if get_origin(kind) in {Mapping, Sequence}:
        kind = dict if get_origin(kind) is Mapping else list
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))
