"""Mixed load on the embedded service while its processes are killed and stopped, and what has to be true afterwards."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

import psutil

from api.client.client import Client
from api.client.connection import Conflict, Problem, Unavailable, Unreachable
from tests.flow.conftest import HASTY, STOP_SECONDS, Service
from tests.patterns import LABELS, QUICK, SIZE, unseen, write_zip

SETTINGS = HASTY | {"ACCRETE_LEASE_SECONDS": "3", "ACCRETE_MAX_CRASHES": "100"}  # so often, none is to be given up
# The first finds training processes only, the second what they are forked from, too.
VICTIMS = ("train ", "trainer.process", "trainer.workers", "python -m api", "redis-server", "spawn_main")
RECIPE = QUICK | {"epochs": 4}
STOPPED_SECONDS = 6.0  # longer than a lease
NOTICE_SECONDS = 60.0  # within which the API is to serve what was promoted; it asks four times a second
PATIENCE_SECONDS = 300.0  # for what is queued when the storm is over


@dataclass
class Tally:
    """What was done and seen; every entry of ``faults`` breaks a promise."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each prediction
    resident: dict[str, list[int]] = field(default_factory=dict)  # MiB by process, once a second

    @property
    def killed(self) -> int:
        """Processes killed."""
        return sum(count for name, count in self.counts.items() if name.startswith("killed"))

    def told(self) -> str:
        """All of it, for a person."""
        p50, p99 = (1000 * quantiles(self.seconds, n=100)[at] for at in (49, 98))
        lines = [f"{name}: {count}" for name, count in sorted(self.counts.items())]
        lines.append(f"killed in all: {self.killed}; a prediction of 4 images: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        for name, seen in self.resident.items():
            lines.append(f"{name}: {seen[0]} MiB resident at first, {max(seen)} at most, {seen[-1]} at last")
        return "\n".join([*lines, *(f"FAULT {fault}" for fault in self.faults)]) + "\n"


class Storm:
    """Teachers, askers, promoters and a killer, each a thread, for some seconds."""

    def __init__(self, service: Service, folder: Path, *, seed: int, pause_seconds: float) -> None:
        """``pause_seconds``: between two killings, on average."""
        self.service, self.folder, self.pause_seconds = service, folder, pause_seconds
        self.tally = Tally()
        self.accepted: dict[str, str] = {}  # increment by its idempotency key
        self.models: list[str] = []
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._archives = {
            labels: write_zip(folder / f"{labels[0]}.zip", labels, images=8)
            for labels in (LABELS[start : start + 2] for start in range(0, len(LABELS), 2))
        }
        self._pictures = unseen(LABELS[0], 4)

    def rage(self, seconds: float, *, enough: Callable[[], bool]) -> None:
        """Do all of it at once, for so long from the first prediction on, then wait until nothing is under way.

        A slow machine goes on until it is ``enough``.
        """
        works = (self._teach, self._ask, self._promote, self._weigh)
        with ThreadPoolExecutor(len(works) + 1) as pool:
            futures = {work.__name__: pool.submit(work) for work in works}
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not self.tally.counts["predictions"] and time.monotonic() < deadline:
                time.sleep(0.1)
            futures["_kill"] = pool.submit(self._kill)
            time.sleep(seconds)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not enough() and time.monotonic() < deadline:
                time.sleep(0.1)
            self._over.set()
        for name, future in futures.items():
            if (error := future.exception()) is not None:  # it ended early, and did not find what it was to find
                self.tally.faults.append(f"{name}: {type(error).__name__}: {error}")

    def _again(self, what: str, call: Callable[[Client], object]) -> object:
        """Ask until there is an answer, as a careful client does: the same request, with the same key."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with Client(self.service.url, timeout_seconds=60) as client:
                    return call(client)
            except (Unreachable, Unavailable):
                self.tally.counts[f"{what} asked again"] += 1
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _teach(self) -> None:
        while not self._over.is_set():
            name = f"m{len(self.models)}"

            def create(client: Client, name: str = name) -> None:
                with contextlib.suppress(Conflict):  # made by a request whose answer was lost
                    client.create_model(name, image_size=SIZE, recipe=RECIPE, memory={"per_class": 3})

            self._again("creation", create)
            self.models.append(name)
            for archive in list(self._archives.values())[: self._chance.randint(1, 3)]:
                key = uuid4().hex

                def push(client: Client, archive: Path = archive, key: str = key, name: str = name) -> str:
                    return client.start_increment(name, archive, idempotency_key=key)["id"]

                self.accepted[key] = str(self._again("increment", push))
                self.tally.counts["increments"] += 1
                if self._over.wait(self._chance.uniform(0.5, 4)):
                    return
            while not self._over.wait(0.5) and self._busy(name):  # or the queue would grow without end
                pass

    def _busy(self, name: str) -> bool:
        """Whether increments of a model are under way."""

        def look(client: Client) -> bool:
            return any(one["status"] in {"queued", "running"} for one in client.increments(name))

        return bool(self._again("a look", look))

    def _ask(self) -> None:
        while not self._over.is_set():
            name = self._chance.choice(self.models or ["m0"])
            began = time.monotonic()
            try:
                with Client(self.service.url, timeout_seconds=60) as client:
                    for _ in range(20):
                        began = time.monotonic()
                        client.predict(name, self._pictures)
                        self.tally.seconds.append(time.monotonic() - began)
                        self.tally.counts["predictions"] += 1
            except Unreachable:
                self.tally.counts["predictions unreachable"] += 1
                time.sleep(0.1)
            except Problem as problem:
                if problem.status >= 500:
                    self.tally.faults.append(f"prediction: {problem.status} {problem.detail}")
                time.sleep(0.1)  # no version yet, or no such model

    def _promote(self) -> None:
        while not self._over.wait(self._chance.uniform(0.5, 2)):
            name = self._chance.choice(self.models or ["m0"])
            try:
                with Client(self.service.url, timeout_seconds=60) as client:
                    versions = [version["version"] for version in client.versions(name)]
                    if versions:
                        client.promote(name, self._chance.choice(versions), idempotency_key=uuid4().hex)
                        self.tally.counts["promotions"] += 1
            except Unreachable:
                self.tally.counts["promotions unreachable"] += 1
            except Problem as problem:
                if problem.status >= 500:
                    self.tally.faults.append(f"promotion: {problem.status} {problem.detail}")

    def _kill(self) -> None:
        while not self._over.wait(self._chance.expovariate(1 / self.pause_seconds)):
            word = self._chance.choice(VICTIMS)
            victims = self.processes(word)
            if not victims:
                continue
            victim = self._chance.choice(victims)
            with contextlib.suppress(psutil.NoSuchProcess):
                if word == "trainer.workers" and self._chance.random() < 0.2:
                    victim.suspend()
                    time.sleep(STOPPED_SECONDS)
                    victim.resume()
                    self.tally.counts["workers stopped past their lease"] += 1
                else:
                    victim.kill()
                    self.tally.counts[f"killed: {word}"] += 1

    def _weigh(self) -> None:
        while not self._over.wait(1):
            for word in ("trainer.workers", "python -m api"):
                for process in self.processes(word)[:1]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        self.tally.resident.setdefault(word, []).append(process.memory_info().rss >> 20)

    def processes(self, word: str) -> list[psutil.Process]:
        """Living processes of the service with a word in their name or command."""
        found = []
        for process in psutil.Process(self.service.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                told = " ".join([process.name(), *process.cmdline()])
                if process.status() != psutil.STATUS_ZOMBIE and word in told:
                    found.append(process)
        return found

    def settle(self) -> None:
        """Wait until every increment has ended, and check what was promised of each."""
        self._again("the list", lambda client: list(client.models()))  # the API may be on its way back
        with Client(self.service.url, timeout_seconds=60) as client:
            deadline = time.monotonic() + PATIENCE_SECONDS
            for increment in set(self.accepted.values()):
                while (found := client.increment(increment))["status"] in {"queued", "running"}:
                    if time.monotonic() > deadline:
                        self.tally.faults.append(f"increment {increment} is still {found['status']}")
                        break
                    time.sleep(0.2)
                self.tally.counts[f"ended as {found['status']}"] += 1
                if found["status"] == "failed" and not found["error"]:
                    self.tally.faults.append(f"increment {increment} failed without a reason")
                if (found["version"] is not None) != (found["status"] == "succeeded"):
                    self.tally.faults.append(f"increment {increment}: {found['status']}, version {found['version']}")
            for name in self.models:
                self._check_model(client, name)

    def _check_model(self, client: Client, name: str) -> None:
        """Versions without gaps in the order of arrival, one for each increment, and the current one predicts."""
        taught = [one for one in client.increments(name) if one["version"] is not None][::-1]
        numbers = [version["version"] for version in client.versions(name)]
        if numbers != list(range(1, len(numbers) + 1)) or [one["version"] for one in taught] != numbers:
            self.tally.faults.append(f"{name}: versions {numbers} of increments {[one['version'] for one in taught]}")
        if set(self.accepted.values()) & {one["id"] for one in taught} != {one["id"] for one in taught}:
            self.tally.faults.append(f"{name}: an increment that nobody asked for")
        if numbers:
            deadline = time.monotonic() + NOTICE_SECONDS
            while (answered := client.predict(name, self._pictures)["version"]) != client.model(name)["current"]:
                if time.monotonic() > deadline:
                    self.tally.faults.append(f"{name}: still answered by {answered}")
                    break
            for number in numbers:
                client.predict(name, self._pictures[:1], version=number)

    def collect(self) -> None:
        """Collect orphans, and see that nothing that is needed went and nothing else is left."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
        environment = inherited | dict(self.service.environment) | {"ACCRETE_HOME": str(self.service.home)}
        command = [sys.executable, "-m", "api.commands.commandline", "gc", "--least-age", "0", "--json"]
        runs = [
            json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
            for _ in range(2)
        ]
        self.tally.counts["orphans collected"] += runs[0]["deleted"]
        if runs[1]["deleted"]:
            self.tally.faults.append(f"{runs[1]['deleted']} orphans were left")
        with Client(self.service.url, timeout_seconds=60) as client:
            for name in self.models:
                for version in client.versions(name):
                    client.download(name, version["version"], self.folder / name / str(version["version"]))

    def end(self) -> None:
        """Stop the service: no process of it may be left."""
        everyone = [psutil.Process(self.service.process.pid)]
        everyone += everyone[0].children(recursive=True)
        self.service.process.send_signal(signal.SIGTERM)
        if self.service.process.wait(STOP_SECONDS) != 0:
            self.tally.faults.append(f"exit status {self.service.process.returncode}")
        _, alive = psutil.wait_procs(everyone, timeout=60)
        if alive:
            self.tally.faults.append(f"left running: {alive}")
