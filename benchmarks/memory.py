"""How much memory of its own an increment takes: `python -m benchmarks.memory`.

The embedded service learns two tasks of ten classes of 32×32 noise, for each number of images and each minibatch a
model of its own; looked at is the second increment's training process, with a teacher and exemplars, twenty times a
second. Anonymous memory is what no file stands behind: what the kernel could not take back.
"""

import argparse
import tempfile
from pathlib import Path

from api.client.client import Client
from benchmarks.parts.archives import noise
from benchmarks.parts.machine import described
from benchmarks.parts.memory import watch
from benchmarks.parts.service import running

CLASSES = 10
STAGES = ("ingesting", "loading", "training", "evaluating", "selecting")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 25_000])
    parser.add_argument("--minibatches", type=int, nargs="+", default=[64, 256])
    chosen = parser.parse_args()
    print(f"{described()}; MB of anonymous memory at most\n")
    print(f"| images | minibatch | {' | '.join(STAGES)} | peak |")
    print(f"|---|---|{'---|' * len(STAGES)}---|")
    with tempfile.TemporaryDirectory(prefix="accrete-bench-") as home:
        first = noise(Path(home) / "first.zip", [f"old-{label}" for label in range(CLASSES)], train=20, test=5)
        archives = {
            count: noise(
                Path(home) / f"{count}.zip",
                [f"new-{label}" for label in range(CLASSES)],
                train=count // CLASSES * 5 // 6,
                test=count // CLASSES // 6,
            )
            for count in chosen.images
        }
        with running(Path(home) / "home") as service, Client(service.url) as client:
            for count, archive in archives.items():
                for minibatch in chosen.minibatches:
                    name = f"m-{count}-{minibatch}"
                    recipe = {"epochs": 1, "minibatch": minibatch, "learning_rate": 0.01}
                    client.create_model(name, recipe=recipe, strategy="lwf-bsr")
                    client.wait(client.start_increment(name, first)["id"])
                    watched = watch(client, service, client.start_increment(name, archive)["id"])
                    each = " | ".join(f"{watched.bytes_by_stage.get(stage, 0) / 1e6:.0f}" for stage in STAGES)
                    print(f"| {count:,} | {minibatch} | {each} | {watched.peak_bytes / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
