"""What a long life costs: `python -m benchmarks.long_life --data FOLDER`.

One model of the embedded service grows by 50 increments of two classes with rehearsal (20 exemplars a class): the
classes of the folder's archives two by two, or noise. Records seconds by stage, memory, and bytes on disk for each
increment as JSON lines in --log, and draws them over the number of classes.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.client.client import Client
from benchmarks.parts.archives import extract, labels_in, noise
from benchmarks.parts.machine import described
from benchmarks.parts.memory import find, resident_bytes, watch
from benchmarks.parts.service import Service, running

STAGES = ("starting", "ingesting", "loading", "training", "evaluating", "selecting", "writing", "publishing")
STRATEGY = "lwf-bsr"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--increments", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path("long-life.jsonl"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/long-life.png"))
    chosen = parser.parse_args()
    print(f"{described()}; {STRATEGY}, {chosen.epochs} epochs\n", flush=True)
    grown: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="accrete-bench-") as folder:
        home = Path(folder) / "home"
        with running(home) as service, Client(service.url) as client, chosen.log.open("a") as log:
            client.create_model("life", strategy=STRATEGY, recipe={"epochs": chosen.epochs})
            for archive in pairs(chosen.data, Path(folder), chosen.increments):
                line = learned(client, service, archive, home)
                grown.append(line)
                log.write(json.dumps(line) + "\n")
                log.flush()
    print(table(grown))
    draw(grown, chosen.plot)


def pairs(data: Path | None, folder: Path, count: int) -> Iterator[Path]:
    """Archives of two classes each, made as they are asked for."""
    archives = sorted(data.glob("*.zip")) if data else []
    sources = [(archive, label) for archive in archives for label in labels_in(archive)]
    for number in range(count):
        file = folder / "pair.zip"
        if sources:
            (archive, one), (_, other) = sources[2 * number], sources[2 * number + 1]
            yield extract(archive, [one, other], file)
        else:
            yield noise(file, [f"{number:02d}-a", f"{number:02d}-b"], train=250, test=50)


def learned(client: Client, service: Service, archive: Path, home: Path) -> dict[str, Any]:
    """One more increment, and what it took."""
    watched = watch(client, service, client.start_increment("life", archive)["id"])
    version = client.version("life", watched.increment["version"] or 0)
    return {
        "classes": sum(len(task) for task in version["tasks"]),
        "seconds": dict(watched.increment["seconds"] or {}),
        "anonymous": watched.bytes_by_stage,
        "api": resident_bytes(find(service, "api")),
        "worker": resident_bytes(find(service, "worker")),
        "weights": version["files"]["weights.safetensors"]["bytes"],
        "manifest": version["files"]["version.json"]["bytes"],
        "blobs": sum(path.stat().st_size for path in (home / "blobs").rglob("*") if path.is_file()),
    }


def table(grown: list[dict[str, Any]]) -> str:
    """Every tenth increment, the first and the last."""
    rows = [f"| classes | {' | '.join(STAGES)} | seconds | child, MB | API, MB | worker, MB | version.json, kB |"]
    rows.append(f"|{'---|' * (len(STAGES) + 6)}")
    last = len(grown) - 1
    for number, line in enumerate(grown):
        if number % 10 and number != last:
            continue
        each = " | ".join(f"{line['seconds'].get(stage, 0):.2f}" for stage in STAGES)
        peak = max(line["anonymous"].values(), default=0)
        memory = f"{peak / 1e6:.0f} | {line['api'] / 1e6:.0f} | {line['worker'] / 1e6:.0f}"
        total = sum(line["seconds"].get(stage, 0) for stage in STAGES)
        rows.append(f"| {line['classes']} | {each} | {total:.1f} | {memory} | {line['manifest'] / 1e3:.0f} |")
    return "\n".join(rows)


def draw(grown: list[dict[str, Any]], file: Path) -> None:
    """Seconds by stage above, memory below, over the number of classes."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    classes = [line["classes"] for line in grown]
    figure, (time_axes, memory_axes) = plt.subplots(2, 1, figsize=(7, 7), sharex=True, layout="constrained")
    each = [[line["seconds"].get(stage, 0) for line in grown] for stage in STAGES]
    time_axes.stackplot(classes, each, labels=STAGES)
    time_axes.set_ylabel("seconds of an increment")
    time_axes.legend(loc="upper left", fontsize="small")
    peaks = [max(line["anonymous"].values(), default=0) / 1e6 for line in grown]
    memory_axes.plot(classes, peaks, label="training process, anonymous, at most")
    for part in ("api", "worker"):
        memory_axes.plot(classes, [line[part] / 1e6 for line in grown], label=f"{part}, resident")
    memory_axes.set_ylabel("MB")
    memory_axes.set_ylim(bottom=0)
    memory_axes.set_xlabel("classes known after the increment (two new ones each)")
    memory_axes.legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
