"""What the processes of the embedded service take of memory."""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from api.client.client import Client, succeeded
from api.client.documents import Increment
from benchmarks.parts.service import Service

SAMPLE_SECONDS = 0.05
ASK_SECONDS = 0.25  # the worker writes the stage down no more often
COMMANDS = {"api": "-m api ", "worker": "trainer.workers", "child": "train "}  # how each is told apart


@dataclass
class Watched:
    """An increment that has ended, and the most anonymous memory its training process held, by stage."""

    increment: Increment
    bytes_by_stage: dict[str, int] = field(default_factory=dict)

    @property
    def peak_bytes(self) -> int:
        """The most of any stage."""
        return max(self.bytes_by_stage.values(), default=0)


def watch(client: Client, service: Service, increment_id: str) -> Watched:
    """Wait for an increment while its training process is looked at; raises `IncrementFailed`.

    A stage is known as late as the database tells it, so that the first moments of one may count for the one before.
    """
    watched = Watched(client.increment(increment_id))
    asked = time.monotonic()
    child: psutil.Process | None = None
    while watched.increment["status"] in {"queued", "running"}:
        if child is None or not child.is_running():
            child = find(service, "child")
        if child is not None:
            _note(watched, anonymous_bytes([child, *_below(child)]))
        time.sleep(SAMPLE_SECONDS)
        if time.monotonic() - asked >= ASK_SECONDS:
            watched.increment, asked = client.increment(increment_id), time.monotonic()
    succeeded(watched.increment)
    return watched


def find(service: Service, part: str) -> psutil.Process | None:
    """The process of a part of the service: api, worker or child; None while it does not run."""
    for process in _below(psutil.Process(service.pid)):
        with suppress(psutil.Error):
            if COMMANDS[part] in " ".join([process.name(), *process.cmdline(), ""]):
                return process
    return None


def anonymous_bytes(processes: Iterable[psutil.Process]) -> int:
    """Memory that is theirs alone and stands for no file; nothing of those that have ended."""
    return sum(_rollup(process.pid, "Anonymous") for process in processes)


def resident_bytes(process: psutil.Process | None) -> int:
    """All memory of a process that is in RAM, mapped files included."""
    return 0 if process is None else int(process.memory_info().rss)


def _note(watched: Watched, held: int) -> None:
    progress = watched.increment["progress"]
    stage = progress["stage"] if progress else "starting"
    watched.bytes_by_stage[stage] = max(held, watched.bytes_by_stage.get(stage, 0))


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _rollup(pid: int, name: str) -> int:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:  # it has ended
        return 0
    return int(found[1]) << 10 if found else 0
