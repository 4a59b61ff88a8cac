"""Two states of the sources side by side: `python -m benchmarks.trees --before FOLDER`, a checkout.

Each has the interpreter of its own `.venv`, or this one where it has none. A machine changes its speed by more than a
change of the sources may, so both are measured at almost the same time. Serving: both services are up, each with a
ResNet-18 and a ResNet-32 that it has trained and published itself, and short loads of one-image predictions (a JPEG)
alternate between them, over one connection, over 32 and over 128. Training: both learn two tasks at the same time, each
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

from benchmarks.parts.load import Load, Outcome
from benchmarks.parts.machine import described
from benchmarks.parts.service import of_tree, running
from benchmarks.parts.serving import MODELS, archive, one_each

HERE = Path(__file__).resolve().parent.parent
RECIPE = {"preset": "quick", "epochs": 1}
CONNECTIONS = (32, 128)
Figures = dict[str, dict[str, list[float]]]  # by kind and tree, one a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="images to train on, as experiments take them; else serving alone")
    parser.add_argument("--rounds", type=int, default=30, help="of serving; a third as many of training")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each load")
    parser.add_argument("--warm", type=float, default=5, help="seconds of each load before the first round")
    parser.add_argument(
        "--before-set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the other checkout's service"
    )
    asked = parser.parse_args()
    settings = {"before": dict(one.split("=", 1) for one in asked.before_set), "now": {}}
    print(described())
    trees = {"before": asked.before.resolve(), "now": HERE}
    found = serving(trees, settings, rounds=asked.rounds, seconds=asked.seconds, warm=asked.warm)
    if asked.data is not None:
        found |= training(trees, asked.data.resolve(), max(asked.rounds // 3, 2))
    print("\n| | before | now | now to before | quartiles of the rounds |\n|---|---:|---:|---:|---:|")
    for kind, values in found.items():
        ratios = [now / before for before, now in zip(values["before"], values["now"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        medians = f"{median(values['before']):.2f} | {median(values['now']):.2f}"
        print(f"| {kind} | {medians} | {median(ratios):.3f} | {low:.3f} to {high:.3f} |")


def serving(
    trees: Mapping[str, Path], settings: Mapping[str, Mapping[str, str]], *, rounds: int, seconds: float, warm: float
) -> Figures:
    """Milliseconds of a request alone (p50), and requests a second of many connections, for each network."""
    kinds = [f"{network}, {kind}" for network in MODELS for kind in ("ms alone", *map(per_second, CONNECTIONS))]
    found: Figures = {kind: {name: [] for name in trees} for kind in kinds}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(taught(tree, settings[name])) for name, tree in trees.items()}
        for port in ports.values():
            for network in MODELS:
                answered(port, network, warm, 8)
        for number in range(rounds):
            for network in MODELS:
                for name in sorted(ports, reverse=bool(number % 2)):
                    alone = answered(ports[name], network, seconds, 1)
                    found[f"{network}, ms alone"][name].append(alone.milliseconds(50))
                    for count in CONNECTIONS:
                        rate = answered(ports[name], network, seconds, count).rate
                        found[f"{network}, {per_second(count)}"][name].append(rate)
    return found


def per_second(connections: int) -> str:
    """What a figure of so many connections is called."""
    return f"a second of {connections}"


def answered(port: int, network: str, seconds: float, connections: int) -> Outcome:
    """A load on the model of a network, all of which is answered."""
    outcome = Load(port, f"/v1/models/{network}/predictions", one_each(), seconds, connections).run()
    if outcome.failed:
        raise SystemExit(f"{outcome.failed} predictions failed")
    return outcome


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
    python, environment = of_tree(tree)
    return subprocess.Popen(
        [
            *("taskset", "-c", str(processor), python, "-m", "trainer.experiments"),
            *("--data", str(data), "--classes", "10", "--tasks", "2", "--image-size", "16", "--strategies", "lwf-bsr"),
            *("--memory", "20", "--out", str(out), "--recipe", '{"epochs": 1, "minibatch": 32}'),
        ],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def taught(tree: Path, settings: Mapping[str, str]) -> Iterator[int]:
    """The service of a tree that has learned two classes by each network; its port."""
    with tempfile.TemporaryDirectory() as home, running(Path(home), tree, settings) as service:
        with httpx.Client(base_url=service.url, timeout=600) as http:
            for network, size in MODELS.items():
                model = {"name": network, "network": network, "image_size": size, "recipe": RECIPE}
                http.post("/v1/models", json=model).raise_for_status()
                asked = http.post(f"/v1/models/{network}/increments", content=archive(["a", "b"])).raise_for_status()
                with http.stream("GET", f"/v1/increments/{asked.json()['id']}/events") as events:
                    for _ in events.iter_lines():
                        pass
                http.get(f"/v1/models/{network}/current").raise_for_status()
        yield int(service.url.rpartition(":")[2])


if __name__ == "__main__":
    main()
