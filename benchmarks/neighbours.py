"""What predictions wait for while an increment trains: `python -m benchmarks.neighbours`.

Requests of one image arrive at random at 30 % of what a closed loop of 32 connections reaches on the idle service, in
turns while it is idle and while an increment of another model trains; milliseconds over all rounds.
"""

import argparse
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from api.client.client import Client
from benchmarks.parts.archives import noise
from benchmarks.parts.load import Load
from benchmarks.parts.machine import described
from benchmarks.parts.service import running
from benchmarks.parts.serving import one_each

LABELS = [f"class-{label}" for label in range(10)]
PATH = "/v1/models/served/predictions"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--share", type=float, default=0.3, help="of the capacity")
    chosen = parser.parse_args()
    waited: dict[str, list[float]] = {"idle": [], "training": []}
    with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
        archive = noise(Path(folder) / "images.zip", LABELS, train=250, test=10)
        with running(Path(folder) / "home") as service, Client(service.url) as client:
            port = int(urlsplit(service.url).port or 0)
            client.create_model("served", network=chosen.network, image_size=64, recipe={"epochs": 1})
            client.wait(client.start_increment("served", archive)["id"])
            Load(port, PATH, one_each(), 3, 32).run()
            capacity = Load(port, PATH, one_each(), 6, 32).run().rate
            load = Load(port, PATH, one_each(), chosen.seconds, 256, chosen.share * capacity)
            for number in range(chosen.rounds):
                waited["idle"] += asked(load)
                waited["training"] += beside_training(client, f"trained-{number}", archive, load)
    print(f"{described()}; {chosen.network} at 64×64, {chosen.share * capacity:.0f} requests/s of {capacity:.0f}\n")
    print("| | requests | p50, ms | p99, ms |\n|---|---|---|---|")
    for name, each in waited.items():
        print(f"| {name} | {len(each)} | {quantile(each, 0.5):.1f} | {quantile(each, 0.99):.1f} |")
    ratios = [quantile(waited["training"], share) / quantile(waited["idle"], share) for share in (0.5, 0.99)]
    print(f"| ratio | | {ratios[0]:.2f} | {ratios[1]:.2f} |")


def beside_training(client: Client, name: str, archive: Path, load: Load) -> list[float]:
    """Ask while an increment trains, which is cancelled afterwards."""
    client.create_model(name, recipe={"epochs": 2000})
    increment = client.start_increment(name, archive)["id"]
    while (progress := client.increment(increment)["progress"]) is None or progress["stage"] != "training":
        time.sleep(0.1)
    answers = asked(load)
    client.cancel(increment)
    while client.increment(increment)["status"] == "running":
        time.sleep(0.1)
    return answers


def asked(load: Load) -> list[float]:
    """Milliseconds of each answer."""
    outcome = load.run()
    assert not outcome.failed, outcome.statuses
    return [1000 * seconds for seconds in outcome.times]


def quantile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


if __name__ == "__main__":
    main()
