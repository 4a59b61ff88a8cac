"""How long each stage of an increment takes, as a user sees it: `python -m benchmarks.increment_stages`.

Grows one model by three archives of 2,500 training and 500 test images (10 classes each) over HTTP against the embedded
service, and prints the seconds of every stage of the third increment, with 10 epochs. `--data` names a folder with
task-00.zip, task-01.zip and task-02.zip; without it the images are noise, which costs the same time.
"""

import argparse
import tempfile
import time
from pathlib import Path

from api.client.client import Client
from benchmarks.parts import archives
from benchmarks.parts.machine import described
from benchmarks.parts.service import running

ARCHIVES = [f"task-{task:02d}.zip" for task in range(3)]
STAGES = ("queued", "starting", "ingesting", "loading", "training", "evaluating", "selecting", "writing", "publishing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=10, help="of the third increment; the first two take 1")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
        data = chosen.data or noise(Path(folder))
        with running(Path(folder) / "home") as service, Client(service.url) as client:
            report(client, data, epochs=chosen.epochs)


def noise(folder: Path) -> Path:
    """Archives of the right size: 250 images to train and 50 to test with in each of 10 classes."""
    for archive in ARCHIVES:
        labels = [f"{Path(archive).stem}-{label}" for label in range(10)]
        archives.noise(folder / archive, labels, train=250, test=50)
    return folder


def report(client: Client, data: Path, *, epochs: int) -> None:
    """Grow the model and print the table of its last increment."""
    client.create_model("bench")
    for name in ARCHIVES[:-1]:
        client.wait(client.start_increment("bench", data / name, recipe={"epochs": 1})["id"])
    began = time.monotonic()
    increment = client.start_increment("bench", data / ARCHIVES[-1], recipe={"epochs": epochs})
    uploaded = time.monotonic() - began
    done = client.wait(increment["id"])
    whole = time.monotonic() - began
    seconds = {"upload": uploaded} | {stage: done["seconds"][stage] for stage in STAGES}
    print(f"{described()}; third increment, {epochs} epochs\n")
    print("| stage | seconds | share |\n|---|---|---|")
    for stage, spent in seconds.items():
        print(f"| {stage} | {spent:.2f} | {spent / whole:.1%} |")
    print(f"| whole, as the client saw it | {whole:.2f} | |")
    print(f"| outside training | {whole - seconds['training']:.2f} | {1 - seconds['training'] / whole:.1%} |")


if __name__ == "__main__":
    main()
