"""The API alone, with untrained versions in it: what serving costs does not depend on what was learned."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

from api.process.embedded import environment, free_port
from api.process.privateredis import PrivateRedis, answers
from benchmarks.parts.load import Request
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.domain import StoredFile
from storage.history import models
from storage.migrations import upgrade
from storage.settings import Settings
from storage.work import leases, publication
from storage.work.publication import Outcome
from trainer.evaluation.metrics import document, measure
from trainer.export import write_executable
from trainer.networks import EvaluationTransform, build, write_version
from trainer.networks.manifest import EXECUTABLE

SIDE = 64  # pixels, height and width of what is sent
LABELS = tuple(f"class-{number:03}" for number in range(100))
MODELS = {"resnet18": 64, "resnet32": 32}  # network and its image_size
COMPARED = 8  # images on which a graph is compared with its network when it is written


@dataclass
class Api:
    """A running API, and what is behind it."""

    settings: Settings
    process: "subprocess.Popen[bytes]"
    http: httpx.Client
    started_seconds: float  # from its start until it was ready

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.settings.port

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        return cpu_seconds(self.process.pid)

    def own_mebibytes(self) -> float:
        """Memory that is its own (unique set size), of all its processes."""
        return sum(one.memory_full_info().uss for one in family(self.process.pid)) / 2**20

    def resident_mebibytes(self) -> float:
        """Memory that is in RAM (resident set size), files that others map as well included, of all its processes."""
        return sum(one.memory_info().rss for one in family(self.process.pid)) / 2**20

    def teach(self, name: str, *, network: str, seed: int = 0) -> None:
        """A new model of one version."""
        body = {"name": name, "network": network, "image_size": MODELS[network], "recipe": {"epochs": 1}}
        self.http.post("/v1/models", json=body).raise_for_status()
        self.publish(name, seed=seed)

    def publish(self, name: str, *, promote: str = "auto", seed: int = 0) -> int:
        """Another version of a model, of the same classes by other weights; its number."""
        return publish(self.settings, self.http, name, promote=promote, seed=seed)


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all that it started."""
    times = [one.cpu_times() for one in family(pid)]
    return sum(one.user + one.system for one in times)


@contextmanager
def serving(names: Sequence[str] = tuple(MODELS), **settings: object) -> Iterator[Api]:
    """An API with a model of one version for each of these networks, named after them."""
    with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
        home = Path(folder)
        redis = PrivateRedis(home / "run")
        broker = subprocess.Popen(redis.part().command, stdout=subprocess.DEVNULL)
        port = free_port("127.0.0.1")
        given = {"redis_url": redis.url, "keys": "none", "log_level": "warning"} | settings
        chosen = Settings(home=home, port=port, **given)  # type: ignore[arg-type]
        upgrade(chosen.database)
        try:
            while not answers(redis.url):
                time.sleep(0.05)
            with started(chosen) as api:
                for name in names:
                    api.teach(name, network=name)
                yield api
        finally:
            broker.terminate()
            broker.wait()
            redis.remove()


@contextmanager
def started(settings: Settings) -> Iterator[Api]:
    """`python -m api` by itself."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "api"], env=others | environment(settings))
    with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=60) as http:
        try:
            wait_until_ready(f"{http.base_url}/readyz", process)
            yield Api(settings, process, http, time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Ask until the answer is 200; by one client, since making one takes as long as a part of what is waited for."""
    with httpx.Client(timeout=10, trust_env=False) as client:
        while process.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.01)
    raise SystemExit("the server did not start")


def publish(settings: Settings, http: httpx.Client, name: str, *, promote: str, seed: int) -> int:
    """Do what a worker does, but for the training; the number of the version."""
    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    model = http.get(f"/v1/models/{name}").json()
    tasks = [LABELS]
    asked = http.post(
        f"/v1/models/{name}/increments",
        params={"promote": promote, "known_classes": "rehearse"},
        content=archive([*LABELS, f"new-{seed}"] if model["head"] else LABELS),
    ).raise_for_status()
    with database.write() as connection:
        claim = leases.claim(connection, worker="benchmark", lease_seconds=600, max_crashes=5)
    assert claim is not None
    assert claim.increment_id == asked.json()["id"]
    with database.read() as connection:
        number = publication.next_number(models.get(connection, name))
    with tempfile.TemporaryDirectory(dir=settings.home) as folder:
        sizes = {
            one: one.stat().st_size for one in write(Path(folder), model["network"], model["image_size"], seed=seed)
        }
        files = {one.name: StoredFile(blobs.put_file(one), size) for one, size in sizes.items()}  # which moves them
    logits = np.eye(len(LABELS))
    outcome = Outcome(
        number=number,
        parent=model["head"],
        tasks=tasks,
        files=files,
        data_digest="0" * 64,
        code_version="benchmark",
        seconds={},
        metrics=document([], measure(logits=logits, targets=np.arange(len(LABELS)), task_sizes=[len(LABELS)]), LABELS),
        exemplars={},
    )
    with database.write() as connection:
        assert publication.publish(connection, claim, outcome) is not None
    database.close()
    return number


def write(folder: Path, network_name: str, image_size: int, *, seed: int) -> list[Path]:
    """An untrained version on disk, with its graph, whose batch normalisation does something; its files."""
    torch.manual_seed(seed)
    network = build(network_name, channels=3, image_size=image_size, task_sizes=[len(LABELS)])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    transform = EvaluationTransform(image_size, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    pixels = torch.randint(256, (COMPARED, 3, image_size, image_size), dtype=torch.uint8)
    record = write_executable(folder / EXECUTABLE, network, transform, pixels=pixels)
    manifest = {"tasks": [LABELS], "version": 1, "executable": record}
    write_version(folder, network, transform=transform, manifest=manifest, files=(EXECUTABLE,))
    return list(folder.iterdir())


def archive(labels: Sequence[str]) -> bytes:
    """A batch of two images a class."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for label in labels:
            for number in range(2):
                opened.writestr(f"{label}/{number}.jpg", jpeg(hash((label, number))))
    return buffer.getvalue()


def jpeg(seed: int, side: int = SIDE) -> bytes:
    """A photograph of nothing in particular: smooth, as photographs are."""
    coarse = np.random.default_rng(seed % 2**32).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def one_each(count: int = 16) -> list[Request]:
    """Requests of one image as the body."""
    return [Request(jpeg(seed), "image/jpeg") for seed in range(count)]


def many_each(images: int, count: int = 4) -> list[Request]:
    """Requests of several images as the Open Inference Protocol sends files: BYTES in binary."""
    requests = []
    for start in range(0, images * count, images):
        files = [jpeg(seed) for seed in range(start, start + images)]
        tensor = b"".join(len(one).to_bytes(4, "little") + one for one in files)
        size = {"binary_data_size": len(tensor)}
        given = {"name": "image", "shape": [images], "datatype": "BYTES", "parameters": size}
        best = {"name": "probabilities", "parameters": {"classification": 5}}
        text = json.dumps({"inputs": [given], "outputs": [best]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        requests.append(Request(text + tensor, "application/octet-stream", headers))
    return requests
