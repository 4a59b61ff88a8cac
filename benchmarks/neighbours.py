"""What predictions wait for while an increment trains: `python -m benchmarks.neighbours`.

The embedded service answers single-image predictions, one after another from a process of its own (this one), in turns
while it is idle and while an increment of another model trains; milliseconds over all rounds.
"""

import argparse
import tempfile
import time
from pathlib import Path

from api.client import Client
from benchmarks.parts.archives import noise, noise_image
from benchmarks.parts.machine import described
from benchmarks.parts.service import running

LABELS = [f"class-{label}" for label in range(10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between an answer and the next question")
    chosen = parser.parse_args()
    waited: dict[str, list[float]] = {"idle": [], "training": []}
    with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
        archive = noise(Path(folder) / "images.zip", LABELS, train=250, test=10)
        picture = Path(folder) / "one.jpg"
        picture.write_bytes(noise_image())
        with running(Path(folder) / "home") as service, Client(service.url) as client:
            client.create_model("served", recipe={"epochs": 1})
            client.wait(client.start_increment("served", archive)["id"])
            asked(client, picture, 2, chosen.pause)
            for number in range(chosen.rounds):
                waited["idle"] += asked(client, picture, chosen.seconds, chosen.pause)
                waited["training"] += beside_training(client, f"trained-{number}", archive, picture, chosen)
    print(f"{described()}; ResNet-32 at 32×32, a request at a time\n")
    print("| | requests | p50, ms | p99, ms |\n|---|---|---|---|")
    for name, each in waited.items():
        print(f"| {name} | {len(each)} | {quantile(each, 0.5):.1f} | {quantile(each, 0.99):.1f} |")
    ratios = [quantile(waited["training"], share) / quantile(waited["idle"], share) for share in (0.5, 0.99)]
    print(f"| ratio | | {ratios[0]:.2f} | {ratios[1]:.2f} |")


def beside_training(client: Client, name: str, archive: Path, picture: Path, chosen: argparse.Namespace) -> list[float]:
    """Ask while an increment trains, which is cancelled afterwards."""
    client.create_model(name, recipe={"epochs": 2000})
    increment = client.start_increment(name, archive)["id"]
    while (progress := client.increment(increment)["progress"]) is None or progress["stage"] != "training":
        time.sleep(0.1)
    answers = asked(client, picture, chosen.seconds, chosen.pause)
    client.cancel(increment)
    while client.increment(increment)["status"] == "running":
        time.sleep(0.1)
    return answers


def asked(client: Client, picture: Path, seconds: float, pause: float) -> list[float]:
    """Milliseconds of each answer, for so long."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        client.predict("served", [picture])
        times.append(1000 * (time.perf_counter() - began))
        time.sleep(pause)
    return times


def quantile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


if __name__ == "__main__":
    main()
