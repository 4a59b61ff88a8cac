"""The files of a run on disk: a folder for each finished task, written whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import Invalid
from trainer.learning.learned import Learned
from trainer.networks import load_version, write_version

MANIFEST, EXEMPLARS, LOCK = "version.json", "exemplars.json", "lock"


class RunElsewhere(Exception):
    """Another process works on the run."""


@dataclass(frozen=True)
class RunFolder:
    """The versions of a run, by task from 0."""

    path: Path

    def task(self, t: int) -> Path:
        """Where the version after task t is, with its exemplars."""
        return self.path / f"task-{t:02d}"

    def has(self, t: int) -> bool:
        """Whether task t is finished."""
        return self.task(t).exists()

    def prune(self, tasks: int) -> None:
        """Remove, of ``tasks`` tasks, those after the first missing one, since they were learned on top of it."""
        missing = next((t for t in range(tasks) if not self.has(t)), tasks)
        for t in range(missing + 1, tasks):
            if self.has(t):
                shutil.rmtree(self.task(t))

    def damaged(self, t: int, reason: object) -> Invalid:
        """The error of a version that cannot be read, with what to do."""
        return Invalid(f"{self.task(t)}: {reason}; remove this folder and start again")

    def manifest(self, t: int) -> dict[str, Any]:
        """The ``version.json`` of a finished task."""
        read: dict[str, Any] = json.loads((self.task(t) / MANIFEST).read_text(encoding="utf-8"))
        return read

    def exemplars(self, t: int) -> list[str]:
        """Ids of the images that the version after task t keeps, class by class, most wanted first."""
        kept: dict[str, list[str]] = json.loads((self.task(t) / EXEMPLARS).read_text(encoding="utf-8"))
        return [image for ids in kept.values() for image in ids]

    def learned(self, t: int) -> Learned:
        """The version after task t; raises `Invalid` where its files are damaged."""
        try:
            version = load_version(self.task(t))
        except (OSError, ValueError) as error:
            raise self.damaged(t, error) from error
        return Learned(version.network, version.transform)

    def write(
        self, t: int, learned: Learned, *, manifest: Mapping[str, Any], exemplars: Mapping[int, Sequence[str]]
    ) -> None:
        """Write task t as finished; its folder gets its name after every byte is on disk."""
        partial = self.path / f"task-{t:02d}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        (partial / EXEMPLARS).write_text(json.dumps(exemplars, ensure_ascii=False), encoding="utf-8")
        write_version(partial, learned.network, transform=learned.transform, manifest=manifest)
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.rename(self.task(t))
        _sync(self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the run against other processes; raises `RunElsewhere` if another process works on it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunElsewhere from None
            yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
