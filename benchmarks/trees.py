"""Two states of the sources side by side: `python -m benchmarks.trees --before FOLDER`, a checkout with its `.venv`.

For a change that moves code and should change no figure. In turn, round by round, in the checkout of before and in this
one: the service is started (`accrete up`), learns two classes, and answers predictions of one image (a JPEG) over one
connection and over 32; then two tasks are learned without the service, and their training timed. Both are asked through
what users have, the command line and HTTP, so that it does not matter where the code is.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from benchmarks.parts.load import Load
from benchmarks.parts.machine import described
from benchmarks.parts.serving import archive, one_each

HERE = Path(__file__).resolve().parent.parent
MODEL = {"name": "m", "image_size": 64, "recipe": {"preset": "quick", "epochs": 1}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="images to train on, as experiments take them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    asked = parser.parse_args()
    print(described())
    trees = {"before": asked.before.resolve(), "now": HERE}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in trees}
    for number in range(asked.rounds):
        for name in sorted(trees, reverse=bool(number % 2)):
            figures = serving(trees[name], asked.seconds) | training(trees[name], asked.data.resolve())
            for kind, value in figures.items():
                found[name].setdefault(kind, []).append(value)
            print(json.dumps({"round": number, "tree": name} | figures), flush=True)
    print("\n| | before | now | now to before |\n|---|---:|---:|---:|")
    for kind, values in found["before"].items():
        before, now = median(values), median(found["now"][kind])
        print(f"| {kind} | {before:.2f} | {now:.2f} | {now / before:.3f} |")


def serving(tree: Path, seconds: float) -> dict[str, float]:
    """Milliseconds of a request alone, and requests a second of 32 connections."""
    with tempfile.TemporaryDirectory() as home, up(tree, Path(home)) as url:
        with httpx.Client(base_url=url, timeout=600) as http:
            http.post("/v1/models", json=MODEL).raise_for_status()
            content = archive(["a", "b"])
            made = http.post("/v1/models/m/increments", content=content).raise_for_status().json()
            with http.stream("GET", f"/v1/increments/{made['id']}/events") as events:
                for _ in events.iter_lines():
                    pass
            http.get("/v1/models/m/current").raise_for_status()
        port, path = int(url.rpartition(":")[2]), "/v1/models/m/predictions"
        Load(port, path, one_each(), 3, 8).run()
        alone, many = Load(port, path, one_each(), seconds, 1).run(), Load(port, path, one_each(), seconds, 32).run()
        if alone.failed or many.failed:
            raise SystemExit(f"{alone.failed + many.failed} predictions failed")
        return {"ms alone": round(alone.milliseconds(50), 3), "a second": round(many.rate, 1)}


def training(tree: Path, data: Path) -> dict[str, float]:
    """Seconds of two tasks, as they are on record: training and measuring, without starting Python."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [
                *(str(tree / ".venv/bin/python"), "-m", "trainer.experiments", "--data", str(data), "--classes", "20"),
                *("--tasks", "2", "--image-size", "16", "--strategies", "lwf-bsr", "--memory", "20", "--out", out),
                *("--recipe", '{"epochs": 1, "minibatch": 32}'),
            ],
            cwd=tree,
            capture_output=True,
            check=True,
        )
        lines = [json.loads(line) for line in (Path(out) / "results.jsonl").read_text().splitlines()]
    return {"s of two tasks": round(sum(line["seconds"] for line in lines), 2)}


@contextmanager
def up(tree: Path, home: Path) -> Iterator[str]:
    """The service of a tree; where it answers."""
    process = subprocess.Popen(
        [str(tree / ".venv/bin/accrete"), "up", "--home", str(home), "--port", "0"],
        cwd=tree,
        env={name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://[\d.]+:\d+", line):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield found.group()
                return
        raise SystemExit(f"the service of {tree} did not start")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


if __name__ == "__main__":
    main()
