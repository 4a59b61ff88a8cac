"""A real API on a free port for tests of its routes, and the versions and steps that a worker would write."""

import hashlib
import io
import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import torch
import uvicorn
from PIL import Image

from api.__main__ import Server
from api.app import create_app
from api.http.protocol import Protocol
from api.process.privateredis import PrivateRedis, answers
from storage.blobs.opening import open_blobs
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import IncrementStatus, StoredFile
from storage.evaluations import FILE, Evaluations
from storage.history import metrics, models, versions
from storage.settings import Settings
from storage.work import events, increments, leases, publication
from storage.work.leases import Claim
from storage.work.publication import Outcome
from tests.storage.packing import zipped
from trainer.evaluation.metrics import document, measure
from trainer.export.graph import export
from trainer.networks import EvaluationTransform, IncrementalNetwork, build, write_version
from trainer.networks.manifest import EXECUTABLE, INT8

SIZE = 8  # pixels, height and width
Json = dict[str, Any]
Graph = Callable[[IncrementalNetwork, EvaluationTransform], bytes]

LEASE_SECONDS = 24 * 3600  # longer than all tests take: what one leaves running must not become another's claim


def network_onnx(network: IncrementalNetwork, transform: EvaluationTransform) -> bytes:
    """A network's graph, as a worker writes it; without its comparison, which takes longer than the rest."""
    content: bytes = export(network, transform, by_dynamo=False).SerializeToString()
    return content


def picture(seed: int, *, size: int = SIZE, kind: str = "PNG") -> bytes:
    """A colour image of noise, another one for each seed."""
    noise = random.Random(seed).randbytes(size * size * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (size, size), noise).save(buffer, kind)
    return buffer.getvalue()


def class_folders(*labels: str, each: int = 3) -> dict[str, bytes]:
    """Files of an archive: some distinct images of each class."""
    return {f"{label}/{n}.png": picture(hash((label, n))) for label in labels for n in range(each)}


def class_zip(*labels: str, each: int = 3) -> bytes:
    """The same as a zip."""
    return zipped(class_folders(*labels, each=each))


def eventually(holds: Callable[[], object], *, seconds: float = 240.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def problem(answer: httpx.Response, status: int, kind: str) -> Json:
    """The problem document of an answer, after checking that it is one and that it says what is wrong."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: Json = answer.json()
    assert body["type"] == f"/problems/{kind}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


@dataclass
class World:
    """A running service, and the other side of it: its database and blobs, where a worker would write."""

    settings: Settings
    http: httpx.Client
    database: Database
    blobs: BlobStore

    @property
    def scratch(self) -> list[Path]:
        """Files of unfinished uploads."""
        return [path for path in self.settings.scratch.rglob("*") if path.is_file()]

    def model(self, **values: object) -> str:
        """Create a model by HTTP; its name."""
        name = f"model-{uuid4().hex[:8]}"
        answer = self.http.post("/v1/models", json={"name": name, "image_size": SIZE, **values})
        assert answer.status_code == 201, answer.text
        return name

    def increment(self, model: str, *labels: str, each: int = 3, **query: Any) -> Json:
        """Ask for an increment from images of some classes."""
        path = f"/v1/models/{model}/increments"
        answer = self.http.post(path, params=query, content=class_zip(*labels, each=each))
        assert answer.status_code == 202, answer.text
        asked: Json = answer.json()
        return asked

    def claim(self, increment_id: str) -> Claim:
        """Take an increment as a worker does; it has to be the oldest that is left."""
        with self.database.write() as connection:
            claim = leases.claim(connection, worker="test", lease_seconds=LEASE_SECONDS, max_crashes=5)
        assert claim is not None
        assert claim.increment_id == increment_id
        return claim

    def step(self, claim: Claim, kind: str, **data: object) -> None:
        """Write a durable step of an increment."""
        with self.database.write() as connection:
            events.add(connection, claim.increment_id, kind=kind, data=data)

    def progress(self, claim: Claim, **progress: object) -> None:
        """Write the live progress of an increment."""
        with self.database.write() as connection:
            leases.renew(connection, claim, lease_seconds=600, progress=progress)

    def end(self, claim: Claim, status: IncrementStatus, *, reason: str | None = None) -> None:
        """Finish an increment without a version."""
        with self.database.write() as connection:
            assert leases.end(connection, claim, status, reason=reason)

    def version(self, model: str, *labels: str, **query: Any) -> int:
        """A version of a network nobody has trained, made from an increment as a worker publishes it; its number."""
        claim = self.claim(self.increment(model, *labels, **query)["id"])
        return self.publish(claim, labels)

    def publish(
        self,
        claim: Claim,
        labels: Sequence[str],
        *,
        rewrite: Mapping[str, object] | None = None,
        graph: Graph | None = network_onnx,
        int8: Graph | None = None,
        results: Evaluations | None = None,
    ) -> int:
        """Publish an untrained network under a claim; the number of its version.

        ``rewrite`` goes over what its version.json says, and makes it one that cannot be loaded. ``graph`` makes its
        network.onnx; with None, it is a version of a release that wrote none. ``int8`` makes its network.int8.onnx.
        ``said`` is what it said of its evaluation images; with None, its release kept metrics alone.
        """
        with self.database.read() as connection:
            increment = increments.get(connection, claim.increment_id)
            model = models.by_id(connection, increment.model_id)
            line = versions.lineage(connection, model, model.head)
            documents = metrics.of_versions(connection, line)
        tasks = [*(line[-1].tasks if line else ()), *([tuple(labels)] if labels else [])]
        number = publication.next_number(model)
        files = self._files(model.name, number, tasks, rewrite or {}, {EXECUTABLE: graph, INT8: int8})
        if results is not None:
            content = results.encoded()
            files[FILE] = StoredFile(self.blobs.put(content), len(content))
        outcome = Outcome(
            number=number,
            parent=model.head,
            tasks=tasks,
            files=files,
            data_digest="0" * 64,
            code_version="test",
            seconds={"training": 1.5},
            metrics=_measured(documents, tasks, seed=number),
            exemplars={},
        )
        with self.database.write() as connection:
            assert publication.publish(connection, claim, outcome) is not None
        return number

    def _files(
        self,
        model: str,
        number: int,
        tasks: Sequence[Sequence[str]],
        rewrite: Mapping[str, object],
        graphs: Mapping[str, Graph | None],
    ) -> dict[str, StoredFile]:
        seed = hashlib.sha256(f"{model} {number}".encode()).digest()  # of the whole name: no two models share a blob
        torch.manual_seed(int.from_bytes(seed[:8]))
        network = build("resnet32", channels=3, image_size=SIZE, task_sizes=[len(task) for task in tasks])
        transform = EvaluationTransform(SIZE, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        folder = self.settings.home / f"version-{uuid4().hex}"
        folder.mkdir()
        made = {name: graph for name, graph in graphs.items() if graph is not None}
        for file_name, graph in made.items():
            (folder / file_name).write_bytes(graph(network.eval(), transform))
        manifest_record = {"tasks": tasks, "version": number}
        write_version(folder, network, transform=transform, manifest=manifest_record, files=tuple(made))
        manifest = folder / "version.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | dict(rewrite)))
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        return {name: StoredFile(self.blobs.put_file(folder / name), size) for name, size in sizes.items()}

    def cancel_everything(self) -> None:
        """Leave no increment behind that another test's claim would take."""
        with self.database.write() as connection:
            while waiting := leases.runnable(connection):  # of each model the oldest
                for increment in waiting:
                    increments.cancel(connection, increment.id)


def _measured(ancestors: Sequence[Mapping[str, Any]], tasks: Sequence[Sequence[str]], *, seed: int) -> Json:
    """Metrics of a version that guesses: 10 images a class."""
    labels = [label for task in tasks for label in task]
    random_numbers = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(labels)), 10)
    logits = random_numbers.normal(size=(len(targets), len(labels)))
    logits[np.arange(len(targets)), targets] += 1
    return document(ancestors, measure(logits=logits, targets=targets, task_sizes=[len(t) for t in tasks]), labels)


@contextmanager
def running(settings: Settings) -> Iterator[World]:
    """A server in a thread of this process, stopped afterwards as on SIGINT, without the time to drain."""
    app = create_app(settings)
    server = Server(app, uvicorn.Config(app, port=0, log_level="warning", access_log=False, http=Protocol, ws="none"))
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    database, http = Database(settings.database), httpx.Client(timeout=60)
    try:
        assert eventually(lambda: server.started or not thread.is_alive())
        assert server.started
        host, port = server.servers[0].sockets[0].getsockname()
        http.base_url = httpx.URL(f"http://{host}:{port}")
        yield World(settings, http, database, open_blobs(settings.blobs))
    finally:
        server.handle_exit(SIGINT, None)
        thread.join()
        http.close()
        database.close()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A real Redis; its URL."""
    redis = PrivateRedis(folder)
    process = subprocess.Popen(redis.part().command, stdout=subprocess.DEVNULL)
    try:
        assert eventually(lambda: answers(redis.url))
        yield redis.url
    finally:
        process.terminate()
        process.wait()
        redis.remove()


def stream_events(lines: Iterator[str]) -> Iterator[tuple[str, str | None, Json]]:
    """Kind, id and data of each server-sent event, as the WHATWG standard reads them (HTML §9.2.6)."""
    kind, number, data = "message", None, ""
    for line in lines:
        if line.startswith(":"):
            continue
        if not line:
            if data:
                yield kind, number, json.loads(data)
            kind, number, data = "message", None, ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            number = value
        elif name == "data":
            data += value
