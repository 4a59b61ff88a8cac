"""Which networks of the catalogue can be exported, how, and how far the graphs differ: `python -m benchmarks.exports`.

Each network is exported for the three smallest of some image sizes that it takes. Its graph is compared with it on
images of noise in minibatches of 32, 1, 2, 3 and 17, as at a publication (`trainer.export`).
"""

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.parts.machine import described
from benchmarks.parts.material import noise
from trainer.export import Disagreement, NotExportable, write_executable
from trainer.learning.increment import Architecture
from trainer.networks import EvaluationTransform, build, check, names

SIZES = (32, 63, 64, 75, 96, 128, 224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--networks", default="", help="regular expression for the beginning of their names")
    parser.add_argument("--sizes", type=int, default=3, help="how many sizes of each network")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"{described(threads=chosen.threads)}\n")
    print("| network | image size | exporter | seconds | MB | largest difference of a probability |")
    print("|---|---|---|---|---|---|")
    for name in names():
        if re.match(chosen.networks, name):
            for size in sizes_of(name, chosen.sizes):
                print(f"| {name} | {size} | {exported(name, size, images=chosen.images)} |", flush=True)


def sizes_of(name: str, most: int) -> Iterator[int]:
    """The smallest sizes that a network takes."""
    found = 0
    for size in SIZES:
        try:
            check(name, channels=3, image_size=size)
        except ValueError:
            continue
        yield size
        if (found := found + 1) == most:
            return


def exported(name: str, size: int, *, images: int) -> str:
    """The cells of a network's row after its name and size; an exporter's name, or the reason why there is none."""
    torch.manual_seed(0)
    architecture = Architecture(name, size, 3)
    network = build(name, channels=3, image_size=size, task_sizes=(3, 4))
    with torch.no_grad():
        network(torch.randn(4, 3, size, size))  # batch statistics, so that its outputs are of usual size
    transform = EvaluationTransform(size, 3, mean=(0.5,) * 3, std=(0.29,) * 3)
    shown = noise(images, architecture=architecture, first_class=0, classes=7).pixels
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
        path = Path(folder) / "network.onnx"
        try:
            record = write_executable(path, network.eval(), transform, pixels=shown)
        except (NotExportable, Disagreement) as error:
            return f"none: {error} | {time.perf_counter() - began:.1f} | – | –"
        seconds, size_mb = time.perf_counter() - began, path.stat().st_size / 1e6
    return f"{record['exporter']} | {seconds:.1f} | {size_mb:.1f} | {record['largest_difference']:.1g}"


if __name__ == "__main__":
    main()
