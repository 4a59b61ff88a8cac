"""Two states of the sources side by side: `python -m benchmarks.trees --before FOLDER`, a checkout with its `.venv`.

For a change that moves code and should change no figure. A machine changes its speed by more than such a change could,
so both are measured at almost the same time. Serving: both services are up, and short loads of one-image predictions
(a JPEG) alternate between them, over one connection and over 32. Training: both learn two tasks at the same time, each
on a processor of its own, and change places after each round. The figure is the median of the rounds' ratios, with
the quartiles. Both are asked through what users have, the command line and HTTP, so that it does not matter where the
code is.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

import httpx

from benchmarks.parts.load import Load
from benchmarks.parts.machine import described
from benchmarks.parts.service import running
from benchmarks.parts.serving import archive, one_each

HERE = Path(__file__).resolve().parent.parent
MODEL = {"name": "m", "image_size": 64, "recipe": {"preset": "quick", "epochs": 1}}
PREDICTIONS = "/v1/models/m/predictions"
Figures = dict[str, dict[str, list[float]]]  # by kind and tree, one a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="images to train on, as experiments take them")
    parser.add_argument("--rounds", type=int, default=30, help="of serving; a third as many of training")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each load")
    asked = parser.parse_args()
    print(described())
    trees = {"before": asked.before.resolve(), "now": HERE}
    found = serving(trees, asked.rounds, asked.seconds) | training(trees, asked.data.resolve(), asked.rounds // 3)
    print("\n| | before | now | now to before | quartiles of the rounds |\n|---|---:|---:|---:|---:|")
    for kind, values in found.items():
        ratios = [now / before for before, now in zip(values["before"], values["now"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        medians = f"{median(values['before']):.2f} | {median(values['now']):.2f}"
        print(f"| {kind} | {medians} | {median(ratios):.3f} | {low:.3f} to {high:.3f} |")


def serving(trees: Mapping[str, Path], rounds: int, seconds: float) -> Figures:
    """Milliseconds of a request alone, and requests a second of 32 connections."""
    found: Figures = {kind: {name: [] for name in trees} for kind in ("ms alone", "a second")}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(taught(tree)) for name, tree in trees.items()}
        for port in ports.values():
            Load(port, PREDICTIONS, one_each(), 5, 8).run()
        for number in range(rounds):
            for name in sorted(ports, reverse=bool(number % 2)):
                alone = Load(ports[name], PREDICTIONS, one_each(), seconds, 1).run()
                many = Load(ports[name], PREDICTIONS, one_each(), seconds, 32).run()
                if alone.failed or many.failed:
                    raise SystemExit(f"{alone.failed + many.failed} predictions failed")
                found["ms alone"][name].append(alone.milliseconds(50))
                found["a second"][name].append(many.rate)
    return found


def training(trees: Mapping[str, Path], data: Path, rounds: int) -> Figures:
    """Seconds of two tasks, as they are on record: training and measuring, without starting Python."""
    found: Figures = {"s of two tasks": {name: [] for name in trees}}
    processors = sorted(os.sched_getaffinity(0))[:2]
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as out:
            places = processors if number % 2 else processors[::-1]
            started = {
                name: learning(tree, data, Path(out, name), processor)
                for (name, tree), processor in zip(trees.items(), places, strict=True)
            }
            for name, process in started.items():
                if process.wait():
                    raise SystemExit(f"the training of {name} failed")
                lines = [json.loads(line) for line in Path(out, name, "results.jsonl").read_text().splitlines()]
                found["s of two tasks"][name].append(sum(line["seconds"] for line in lines))
        print(json.dumps({name: round(values[-1], 2) for name, values in found["s of two tasks"].items()}), flush=True)
    return found


def learning(tree: Path, data: Path, out: Path, processor: int) -> "subprocess.Popen[bytes]":
    """Start an experiment of two tasks on one processor."""
    return subprocess.Popen(
        [
            *("taskset", "-c", str(processor), str(tree / ".venv/bin/python"), "-m", "trainer.experiments"),
            *("--data", str(data), "--classes", "10", "--tasks", "2", "--image-size", "16", "--strategies", "lwf-bsr"),
            *("--memory", "20", "--out", str(out), "--recipe", '{"epochs": 1, "minibatch": 32}'),
        ],
        cwd=tree,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def taught(tree: Path) -> Iterator[int]:
    """The service of a tree that has learned two classes; its port."""
    with tempfile.TemporaryDirectory() as home, running(Path(home), tree) as service:
        with httpx.Client(base_url=service.url, timeout=600) as http:
            http.post("/v1/models", json=MODEL).raise_for_status()
            made = http.post("/v1/models/m/increments", content=archive(["a", "b"])).raise_for_status().json()
            with http.stream("GET", f"/v1/increments/{made['id']}/events") as events:
                for _ in events.iter_lines():
                    pass
            http.get("/v1/models/m/current").raise_for_status()
        yield int(service.url.rpartition(":")[2])


if __name__ == "__main__":
    main()
