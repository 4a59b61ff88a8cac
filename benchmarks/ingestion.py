"""What ingesting costs beside decoding and resizing alone: `python -m benchmarks.ingestion`.

`trainer.ingestion.ingest_archive` (reading the archive, decoding, resizing, storing the originals, settling sides,
packing, writing all of it through to the disk, and starting its processes), in turn with the same files decoded
and resized by as many threads, or by processes that run already, whichever is faster, which do nothing else.
Photographs are smooth noise, JPEG quality 90.
"""

import argparse
import tempfile
from pathlib import Path

SIZES = ((32, 32, 20_000), (64, 64, 20_000), (500, 375, 8000), (1600, 1200, 600), (4000, 3000, 96))  # and images


def main() -> None:
    # Here, not above: processes that decode import this program again when they start, and would wait for torch.
    from benchmarks.parts.ingesting import FORM, measured, photographs
    from benchmarks.parts.machine import described

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=4000, help="width of the largest photographs")
    chosen = parser.parse_args()
    print(f"{described()}; to {FORM.image_size}×{FORM.image_size}\n")
    print("| files | images/s | decoding alone, threads | processes | ratio to the faster |\n|---|---|---|---|---|")
    for width, height, count in SIZES:
        if width > chosen.largest:
            continue
        with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
            ours, threads, processes = measured(photographs(count, width, height), Path(folder), chosen.rounds)
        faster = max(threads, processes)
        print(f"| {width}×{height} | {ours:.0f} | {threads:.0f} | {processes:.0f} | {ours / faster:.2f} |", flush=True)


if __name__ == "__main__":
    main()
