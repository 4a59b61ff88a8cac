"""Serving beside what it does at the least, and beside others: `python -m benchmarks.serving`.

Bare: decoding, a session of ONNX Runtime and the five best classes, in minibatches of 16 (or of one), in one process.
Processor time is that of one thread; a single image is computed by as many threads as the service uses. The service
keeps its records. LitServe and BentoML serve the same weights with batching on, by torch's faster execution for each
size of a minibatch; they live in an environment of their own, which PEERS names (`make bench BENCH=serving` makes it).
Loads come from another process, servers take turns, and medians over all rounds are printed.
"""

import argparse
import base64
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from api.process.embedded import free_port
from benchmarks.parts.load import Load, Outcome, Request
from benchmarks.parts.machine import described
from benchmarks.parts.onnxsessions import session
from benchmarks.parts.serving import (
    MODELS,
    cpu_seconds,
    jpeg,
    many_each,
    one_each,
    serving,
    wait_until_ready,
    write,
)
from trainer.networks.manifest import EXECUTABLE
from trainer.networks.pictures import Form

PEERS = os.environ.get("PEERS", ".venv-peers")
COMMANDS = {
    "LitServe": ["bin/python", "-m", "benchmarks.peers.litserve_server"],
    "BentoML": ["bin/bentoml", "serve", "benchmarks.peers.bentoml_service:Api", "--port", "PORT"],
}
MANY = 16
BEST = 5


@dataclass
class Server:
    """One that is compared: where it is, and what it is asked."""

    port: int
    pid: int
    path: str
    requests: list[Request]

    def loaded(self, seconds: float, connections: int) -> tuple[Outcome, float]:
        """What a closed loop makes of it, and its processor time in seconds."""
        before = cpu_seconds(self.pid)
        outcome = Load(self.port, self.path, self.requests, seconds, connections).run()
        assert not outcome.failed, outcome.statuses
        return outcome, cpu_seconds(self.pid) - before


@dataclass
class Seen:
    """Figures of every round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """One more."""
        self.values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> float:
        """The median."""
        return statistics.median(self.values[name])


class Bare:
    """Decoding and inference, and the best classes, of images that are at hand."""

    def __init__(self, name: str, folder: Path, *, threads: int) -> None:
        """Write a version and load its graph, to compute with so many threads."""
        write(folder, name, MODELS[name], seed=0)
        self._session = session(folder / EXECUTABLE, threads=threads)
        self._form = Form(3, MODELS[name])
        self._files = [jpeg(seed) for seed in range(MANY)]

    def run(self, images: int) -> None:
        """One minibatch."""
        rows = [self._form.row(self._files[n % MANY], max_pixels=10**8) for n in range(images)]
        side = self._form.image_size
        pixels = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, side, side, 3).transpose(0, 3, 1, 2)
        probabilities = self._session.run(["probabilities"], {"pixels": np.ascontiguousarray(pixels)})[0]
        best = np.argpartition(-probabilities, BEST, axis=1)[:, :BEST]
        values = np.take_along_axis(probabilities, best, axis=1)
        np.take_along_axis(best, np.argsort(-values, axis=1), axis=1)

    def cpu_milliseconds(self, images: int, seconds: float) -> float:
        """Processor time an image, in minibatches of so many."""
        count, began, cpu = 0, time.monotonic(), time.process_time()
        while time.monotonic() - began < seconds:
            self.run(images)
            count += images
        return 1000 * (time.process_time() - cpu) / count

    def milliseconds(self, seconds: float) -> float:
        """The median time of one image alone."""
        times, began = [], time.monotonic()
        while (now := time.monotonic()) - began < seconds:
            self.run(1)
            times.append(time.monotonic() - now)
        return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 64, 128])
    chosen = parser.parse_args()
    print(f"{described(threads=1)}\n")
    costs(chosen.rounds, chosen.seconds)
    throughput(chosen.rounds, chosen.seconds, chosen.connections)


def costs(rounds: int, seconds: float) -> None:
    """Server processor time an image beside bare, and a request alone."""
    seen = Seen()
    processors = len(os.sched_getaffinity(0))  # of which the service uses all
    with serving() as api, tempfile.TemporaryDirectory() as folder:
        bares = {name: Bare(name, Path(tempfile.mkdtemp(dir=folder)), threads=1) for name in MODELS}
        alone = {name: Bare(name, Path(tempfile.mkdtemp(dir=folder)), threads=processors) for name in MODELS}
        one = {n: Server(api.port, api.process.pid, f"/v1/models/{n}/predictions", one_each()) for n in MODELS}
        many = {n: Server(api.port, api.process.pid, f"/v2/models/{n}/infer", many_each(MANY)) for n in MODELS}
        for name in MODELS:
            one[name].loaded(2, 32)
            many[name].loaded(1, 4)
        for _ in range(rounds):
            for name in MODELS:
                seen.add(f"{name} bare {MANY}", bares[name].cpu_milliseconds(MANY, seconds / 2))
                outcome, cpu = one[name].loaded(seconds, 64)
                seen.add(f"{name} one", 1000 * cpu / outcome.answered)
                outcome, cpu = many[name].loaded(seconds, 4)
                seen.add(f"{name} many", 1000 * cpu / outcome.answered / MANY)
                seen.add(f"{name} alone bare", alone[name].milliseconds(seconds / 2))
                outcome, _ = one[name].loaded(seconds / 2, 1)
                seen.add(f"{name} alone", outcome.milliseconds(50))
    print(f"| network | bare, {MANY} together | one-image requests | share | {MANY}-image requests | share |")
    print("|---|---|---|---|---|---|")
    for name in MODELS:
        bare = seen[f"{name} bare {MANY}"]
        shares = [bare / seen[f"{name} {kind}"] for kind in ("one", "many")]
        row = f"| {name} | {bare:.2f} | {seen[f'{name} one']:.2f} | {shares[0]:.2f} "
        print(row + f"| {seen[f'{name} many']:.2f} | {shares[1]:.2f} |")
    print("\n| network | bare, alone, ms | a request at a time, p50, ms | difference |\n|---|---|---|---|")
    for name in MODELS:
        bare, served = seen[f"{name} alone bare"], seen[f"{name} alone"]
        print(f"| {name} | {bare:.2f} | {served:.2f} | {served - bare:.2f} |")


def throughput(rounds: int, seconds: float, connections: list[int]) -> None:
    """Images a second of one-image requests in a closed loop, beside the others."""
    seen = Seen()
    with serving(["resnet18"]) as api, tempfile.TemporaryDirectory() as folder:
        write(Path(folder), "resnet18", MODELS["resnet18"], seed=0)
        path = "/v1/models/resnet18/predictions"
        ours = Server(api.port, api.process.pid, path, one_each())
        for number in range(rounds):
            measured(seen, "Accrete", ours, seconds, connections)
            for name, command in COMMANDS.items():
                with peer(command, Path(folder)) as server:
                    measured(seen, name, server, seconds, connections)
            print(f"round {number + 1} of {rounds}", flush=True)
    print("\n| server | connections | images/s | p50, ms | p99, ms | server CPU, ms an image | Accrete's times |")
    print("|---|---|---|---|---|---|---|")
    for count in connections:
        for name in ("Accrete", *COMMANDS):
            figures = [seen[f"{name} {count} {kind}"] for kind in ("rate", "p50", "p99", "cpu")]
            times = seen[f"Accrete {count} rate"] / figures[0]
            print(
                f"| {name} | {count} | {figures[0]:.0f} | " + " | ".join(f"{one:.1f}" for one in figures[1:3]), end=""
            )
            print(f" | {figures[3]:.2f} | {times:.2f} |")


def measured(seen: Seen, name: str, server: Server, seconds: float, connections: list[int]) -> None:
    """Load a server and keep its figures."""
    for count in connections:
        server.loaded(seconds / 2, count)
        outcome, cpu = server.loaded(seconds, count)
        seen.add(f"{name} {count} rate", outcome.rate)
        seen.add(f"{name} {count} p50", outcome.milliseconds(50))
        seen.add(f"{name} {count} p99", outcome.milliseconds(99))
        seen.add(f"{name} {count} cpu", 1000 * cpu / outcome.answered)


@contextmanager
def peer(command: list[str], version: Path) -> Iterator[Server]:
    """Another server, ready to predict."""
    port = free_port("127.0.0.1")
    settings = {
        "PEER_VERSION": str(version),
        "PEER_PORT": str(port),
        "PEER_THREADS": str(len(os.sched_getaffinity(0))),
        "PYTHONPATH": str(Path.cwd()),
        "OMP_WAIT_POLICY": "PASSIVE",
        "BENTOML_HOME": str(version / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "1",
        "LITSERVE_DISABLE_TELEMETRY": "1",
    }
    words = [f"{PEERS}/{command[0]}", *(word.replace("PORT", str(port)) for word in command[1:])]
    process = subprocess.Popen(
        words, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        page = "readyz" if "serve" in command else "health"
        wait_until_ready(f"http://127.0.0.1:{port}/{page}", process)
        yield Server(port, process.pid, "/predict", in_base64(is_list="serve" in command))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def in_base64(*, is_list: bool) -> list[Request]:
    """One image a request, as these servers take it."""
    images = [base64.b64encode(jpeg(seed)).decode() for seed in range(MANY)]
    bodies = [{"images": [image]} if is_list else {"image": image} for image in images]
    return [Request(json.dumps(body).encode(), "application/json") for body in bodies]


if __name__ == "__main__":
    main()
