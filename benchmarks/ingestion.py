"""What ingesting costs beside decoding and resizing alone: `python -m benchmarks.ingestion`.

`trainer.ingestion.ingest_archive` (reading the archive, decoding, resizing, storing the originals, settling sides,
packing, and writing all of it through to the disk), in turn with the same files decoded and resized by as many threads,
or by processes, whichever is faster, which do nothing else. Photographs are smooth noise, JPEG quality 90.
"""

import argparse
import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from benchmarks.parts.machine import described
from benchmarks.parts.turns import Turns
from storage.blobs import open_blobs
from storage.domain import Batch, BatchStatus, new_id, now
from storage.settings import Settings
from trainer.ingestion import ingest_archive
from trainer.packing import Form

THREADS = 2
CHUNK = 2  # images a process is sent at a time: few, so that both end together
SIZES = ((32, 32, 3000), (64, 64, 3000), (500, 375, 600), (1600, 1200, 100), (4000, 3000, 24))  # width, height, images
FORM = Form(channels=3, image_size=32)
PIXELS = 50_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print(f"{described()}; to {FORM.image_size}×{FORM.image_size}\n")
    print("| files | images/s | decoding alone, threads | processes | ratio to the faster |\n|---|---|---|---|---|")
    for width, height, count in SIZES:
        with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
            ours, threads, processes = measured(photographs(count, width, height), Path(folder), chosen.rounds)
        faster = max(threads, processes)
        print(f"| {width}×{height} | {ours:.0f} | {threads:.0f} | {processes:.0f} | {ours / faster:.2f} |", flush=True)


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


def measured(files: Sequence[bytes], folder: Path, rounds: int) -> tuple[float, float, float]:
    """Images a second: ours, threads, processes."""
    archive = folder / "images.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for number, data in enumerate(files):
            opened.writestr(f"class-{number % 10}/{number}.jpg", data)
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(THREADS) as threads, ProcessPoolExecutor(THREADS, get_context("forkserver")) as processes:
        list(processes.map(decoded, chunks[: 2 * THREADS]))  # started and warm
        rivals: dict[str, Callable[[], object]] = {
            "ours": lambda: ingested(archive, Path(tempfile.mkdtemp(dir=folder))),
            "threads": lambda: list(threads.map(decoded, chunks)),
            "processes": lambda: list(processes.map(decoded, chunks)),
        }
        turns = Turns(rivals, torch.device("cpu"))
        for _ in range(rounds + 1):
            turns.round()
    ours, by_threads, by_processes = (len(files) / median(times[1:]) for times in turns.seconds.values())
    return ours, by_threads, by_processes


def decoded(files: Sequence[bytes]) -> int:
    """Decode and resize, and keep nothing."""
    return sum(len(FORM.row(data, max_pixels=PIXELS)) for data in files)


def ingested(archive: Path, home: Path) -> None:
    """The service's way, into a store of its own."""
    blobs = open_blobs(str(home / "blobs"))
    copy = home / "copy.zip"
    shutil.copyfile(archive, copy)
    batch = Batch(
        id=new_id(),
        model_id="m",
        status=BatchStatus.CLOSED,
        archive=blobs.put_file(copy),
        archive_kind="zip",
        fingerprint=None,
        classes=(),
        rejects=(),
        digest=None,
        created_at=now(),
    )
    scratch = home / "scratch"
    scratch.mkdir()
    ingest_archive(
        batch,
        blobs=blobs,
        settings=Settings(home=home),
        threads=THREADS,
        form=FORM,
        folder=scratch,
        advanced=lambda _done, _of: None,
    )
    blobs.sync()


if __name__ == "__main__":
    main()
