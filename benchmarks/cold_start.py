"""How long the API takes from its start until it is ready with one ResNet-18, and where the time goes.

`python -m benchmarks.cold_start`. Ready means that the version in service is loaded, checked and warm. The parts of the
start are done one after another in a process of its own (`benchmarks.parts.startstages`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from api.process.embedded import environment
from benchmarks.parts.machine import described
from benchmarks.parts.serving import Api, jpeg, serving, started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {}
    resident = own = 0.0
    with serving(["resnet18"]) as api:
        settings = api.settings.model_copy(update={"port": api.settings.port + 1})
        for _ in range(rounds):
            stages = staged(api)
            with started(settings) as again:
                seconds.setdefault("start to ready", []).append(again.started_seconds)
                for name, spent in stages.items():
                    seconds.setdefault(f"of it: {name}", []).append(spent)
                rest = again.started_seconds - sum(stages.values())
                seconds.setdefault("of it: the rest, such as listening and starting threads", []).append(rest)
                for name, seed in (("first answer", 1), ("second answer", 2)):
                    began = time.monotonic()
                    again.http.post("/v1/models/resnet18/predictions", content=jpeg(seed)).raise_for_status()
                    seconds.setdefault(name, []).append(time.monotonic() - began)
                resident, own = again.resident_mebibytes(), again.own_mebibytes()
    print(f"{described()}\n\n| | seconds |\n|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {statistics.median(each):.3f} |")
    print(f"\n{resident:.0f} MiB resident after two answers, {own:.0f} of them its own")


def staged(api: Api) -> dict[str, float]:
    """Seconds of each part of a start, by name."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    command = [sys.executable, "-m", "benchmarks.parts.startstages", "resnet18", str(time.monotonic())]
    told = subprocess.run(command, env=others | environment(api.settings), capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
