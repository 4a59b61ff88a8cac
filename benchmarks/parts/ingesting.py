"""Ingestion and its rivals, which only decode."""

import gc
import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.parts.turns import Turns
from storage.blobs.opening import open_blobs
from storage.blobs.store import file_digest
from storage.domain import Batch, BatchStatus, new_id, now
from storage.settings import Settings
from trainer.ingestion.archive import ingest_archive
from trainer.networks.pictures import Form
from trainer.reporting import SilentReport

WORKERS = 2
FORM = Form(channels=3, image_size=32)
PIXELS = 50_000_000


def photographs(count: int, width: int, height: int) -> list[bytes]:
    """JPEG files without much detail, all different."""
    generator = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


class Rates(NamedTuple):
    """Images a second."""

    ours: float
    alone: float  # decoding and resizing as we do, by threads or processes, whichever is faster
    in_full: float  # decoding as usual, all of a JPEG file, and resizing; the same


def measured(files: Sequence[bytes], folder: Path, rounds: int) -> Rates:
    """Everybody in turn; medians."""
    archive = folder / "images.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for number, data in enumerate(files):
            opened.writestr(f"class-{number % 10}/{number}.jpg", data)
    digest = file_digest(archive)
    chunk = max(2, min(64, (1 << 20) // len(files[0])))  # enough to make little of the way to a process
    chunks = [files[start : start + chunk] for start in range(0, len(files), chunk)]
    with ThreadPoolExecutor(WORKERS) as threads, ProcessPoolExecutor(WORKERS, get_context("forkserver")) as processes:
        list(processes.map(decoded, chunks[: 2 * WORKERS]))  # started and warm
        rivals: dict[str, Callable[[], object]] = {
            "ours": lambda: ingested(archive, digest, Path(tempfile.mkdtemp(dir=folder))),
            "threads": lambda: list(threads.map(decoded, chunks)),
            "processes": lambda: list(processes.map(decoded, chunks)),
            "threads, in full": lambda: list(threads.map(decoded_in_full, chunks)),
            "processes, in full": lambda: list(processes.map(decoded_in_full, chunks)),
        }
        gc.freeze()  # as a training process begins (trainer.process.forks): its collections do not look through torch
        turns = Turns(rivals, torch.device("cpu"))
        for _ in range(rounds + 1):
            turns.round()
    rates = {name: len(files) / median(times[1:]) for name, times in turns.seconds.items()}
    return Rates(
        ours=rates["ours"],
        alone=max(rates["threads"], rates["processes"]),
        in_full=max(rates["threads, in full"], rates["processes, in full"]),
    )


def decoded(files: Sequence[bytes]) -> int:
    """Decode and resize, and keep nothing."""
    return sum(len(FORM.row(data, max_pixels=PIXELS)) for data in files)


def decoded_in_full(files: Sequence[bytes]) -> int:
    """The usual way, and keep nothing."""
    size = (FORM.image_size, FORM.image_size)
    total = 0
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            total += len(image.convert("RGB").resize(size, Image.Resampling.BILINEAR).tobytes())
    return total


def ingested(archive: Path, digest: str, home: Path) -> None:
    """The service's way, from an archive as an upload leaves it, into a store of its own."""
    blobs = open_blobs(str(home / "blobs"))
    uploaded = home / "uploaded.zip"
    uploaded.hardlink_to(archive)
    batch = Batch(
        id=new_id(),
        model_id="m",
        status=BatchStatus.CLOSED,
        archive=blobs.put_file(uploaded, sha256=digest),
        archive_kind="zip",
        fingerprint=None,
        classes=(),
        reject_count=0,
        digest=None,
        created_at=now(),
    )
    scratch = home / "scratch"
    scratch.mkdir()
    ingest_archive(
        batch,
        blobs=blobs,
        settings=Settings(home=home),
        processes=WORKERS,
        form=FORM,
        folder=scratch,
        report=SilentReport(),
    )
    blobs.sync()
