"""Promotions under steady load: `python -m benchmarks.swaps`.

Requests of one image arrive at random at 70 % of what a closed loop of 32 connections reaches, first without and then
with promotions from one version of ResNet-18 to the other and back. Every answer is compared with what its version says
of that image when it is alone.
"""

import argparse
import json
import time
from statistics import median, quantiles

from benchmarks.parts.load import Load, Outcome
from benchmarks.parts.machine import described
from benchmarks.parts.serving import Api, jpeg, one_each, serving

PATH = "/v1/models/resnet18/predictions"
TOLERANCE = 1e-3  # of a probability
AFTER_SECONDS = 0.1  # an answer so soon after a swap may have waited for it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--promotions", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between a promotion and the next")
    parser.add_argument("--share", type=float, default=0.7, help="of the capacity")
    chosen = parser.parse_args()
    with serving(["resnet18"]) as api:
        api.publish("resnet18", promote="manual", seed=1)
        expected = {version: [said(api, number, version) for number in range(16)] for version in (1, 2)}
        Load(api.port, PATH, one_each(), 3, 32).run()
        capacity = Load(api.port, PATH, one_each(), 6, 32).run().rate
        rate = chosen.share * capacity
        steady = Load(api.port, PATH, one_each(), 30, 256, rate, keep_bodies=True).run()
        trial = Load(api.port, PATH, one_each(), 20, 256, rate).start()
        typical = median(ended - began for began, ended in promote(api, 4, chosen.pause))  # back where it began
        trial.result()
        seconds = 5 + chosen.promotions * (chosen.pause + 1.1 * typical)
        running = Load(api.port, PATH, one_each(), seconds, 256, rate, keep_bodies=True).start()
        swaps = promote(api, chosen.promotions, chosen.pause)
        swapped = running.result()
    check(steady, expected)
    check(swapped, expected)
    print(f"{described()}\n\n{rate:.0f} requests/s of {capacity:.0f}")
    report(steady, swapped, swaps)


def said(api: Api, number: int, version: int) -> dict[str, float]:
    """Probabilities of an image by a version, alone."""
    answer = api.http.post(PATH, params={"version": version, "top_k": 100}, content=jpeg(number)).raise_for_status()
    return {one["label"]: one["probability"] for one in answer.json()["predictions"][0]}


def promote(api: Api, times: int, pause: float) -> list[tuple[float, float]]:
    """Put the other version into service again and again; when each began and was answered."""
    swaps = []
    time.sleep(2)
    for number in range(times):
        began = time.monotonic()
        api.http.put("/v1/models/resnet18/current", json={"version": 2 - number % 2}).raise_for_status()
        swaps.append((began, time.monotonic()))
        time.sleep(pause)
    return swaps


def check(outcome: Outcome, expected: dict[int, list[dict[str, float]]]) -> None:
    """Fail unless every answer is what one version says."""
    assert not outcome.failed, outcome.statuses
    for number, body in zip(outcome.asked, outcome.bodies, strict=True):
        answer = json.loads(body)
        probabilities = expected[answer["version"]][number]
        for one in answer["predictions"][0]:
            assert abs(one["probability"] - probabilities[one["label"]]) < TOLERANCE


def report(steady: Outcome, swapped: Outcome, swaps: list[tuple[float, float]]) -> None:
    """Print what came of it."""
    during = [
        seconds
        for seconds, moment in zip(swapped.times, swapped.moments, strict=True)
        if any(began <= moment <= ended + AFTER_SECONDS for began, ended in swaps)
    ]
    loads = [ended - began for began, ended in swaps]
    print(f"{len(swaps)} promotions; loading, checking and warming: {median(loads):.2f} s, {max(loads):.2f} at most\n")
    print("| | answers | not 200 | p50, ms | p99, ms |\n|---|---|---|---|---|")
    rows = {
        "steady": (steady.times, steady.failed),
        "with promotions, all": (swapped.times, swapped.failed),
        "during a swap": (during, swapped.failed),
    }
    for name, (times, failed) in rows.items():
        p50, p99 = (1000 * quantiles(times, n=100)[at] for at in (49, 98))
        print(f"| {name} | {len(times)} | {failed} | {p50:.1f} | {p99:.1f} |")
    print(f"\np99 during a swap beside steady: {quantiles(during, n=100)[98] / quantiles(steady.times, n=100)[98]:.2f}")


if __name__ == "__main__":
    main()
