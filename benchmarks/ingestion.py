"""What ingesting costs beside decoding and resizing alone: `python -m benchmarks.ingestion`.

`ingest_archive` (reading the archive, decoding, resizing, storing the originals, settling sides,
packing, writing all of it through to the disk, and starting its processes), in turn with the same files decoded
and resized by as many threads, or by processes that run already, whichever is faster, which do nothing else: as we
decode (of a large JPEG file what its size as a row needs), and in full. Photographs are smooth noise, JPEG quality 90.
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
    print("| files | images/s | decoding alone | ratio | decoding in full alone | ratio |\n|---|---|---|---|---|---|")
    for width, height, count in SIZES:
        if width > chosen.largest:
            continue
        with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
            rates = measured(photographs(count, width, height), Path(folder), chosen.rounds)
        alone = f"{rates.alone:.0f} | {rates.ours / rates.alone:.2f}"
        in_full = f"{rates.in_full:.0f} | {rates.ours / rates.in_full:.2f}"
        print(f"| {width}×{height} | {rates.ours:.0f} | {alone} | {in_full} |", flush=True)


if __name__ == "__main__":
    main()
