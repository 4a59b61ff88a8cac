"""How long the API takes from its start until it is ready with one ResNet-18, and where the time goes.

`python -m benchmarks.cold_start`. Ready means that the version in service is loaded, checked and warm.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time

from benchmarks.parts.machine import described
from benchmarks.parts.serving import jpeg, serving, started

IMPORTS = "import time; b = time.perf_counter(); import {0}; print(time.perf_counter() - b)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {}
    resident = 0.0
    with serving(["resnet18"]) as api:
        settings = api.settings.model_copy(update={"port": api.settings.port + 1})
        for _ in range(rounds):
            for name in ("torch", "api.app"):
                seconds.setdefault(f"import {name}", []).append(imported(name))
            with started(settings) as again:
                seconds.setdefault("start to ready", []).append(again.started_seconds)
                began = time.monotonic()
                again.http.post("/v1/models/resnet18/predictions", content=jpeg(1)).raise_for_status()
                seconds.setdefault("first answer", []).append(time.monotonic() - began)
                again.http.post("/v1/models/resnet18/predictions", content=jpeg(2)).raise_for_status()
                resident = again.resident_mebibytes()
    print(f"{described()}\n\n| | seconds |\n|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {statistics.median(each):.2f} |")
    rest = statistics.median(seconds["start to ready"]) - statistics.median(seconds["import api.app"])
    print(f"| of the start: database, loading, measuring executions, warming | {rest:.2f} |")
    print(f"\n{resident:.0f} MiB of its own when it is ready")


def imported(name: str) -> float:
    """Seconds a fresh interpreter takes for an import."""
    told = subprocess.run([sys.executable, "-c", IMPORTS.format(name)], capture_output=True, text=True, check=True)
    found = re.search(r"[\d.]+", told.stdout)
    assert found is not None
    return float(found.group())


if __name__ == "__main__":
    main()
