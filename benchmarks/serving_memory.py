"""Memory of the API over many requests, many swaps and many models: `python -m benchmarks.serving_memory`.

First what the API takes after its start with one ResNet-32, whose limit is 200 MB resident. Then MiB of its own (unique
set size) at each tenth of 200,000 requests, and of 200 promotions of which every fourth fails: a version whose graph is
damaged in the blob store. Then what each further model in service takes, beside its weights.
"""

import argparse
import time
from pathlib import Path

from benchmarks.parts.load import Load
from benchmarks.parts.machine import described
from benchmarks.parts.serving import MODELS, Api, jpeg, one_each, serving, started
from trainer.networks.manifest import EXECUTABLE, WEIGHTS

PATH = "/v1/models/resnet32/predictions"
CHUNKS = 10
FIRST = 3  # models that come before those that are counted: the first loads and minibatches also fill what all share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--models", type=int, default=20, help="of each network")
    chosen = parser.parse_args()
    print(f"{described()}\n\n| after the start | resident, MiB | MB | of its own, MiB |\n|---|---|---|---|")
    after_start()
    print("\n| | " + " | ".join(f"{100 * n // CHUNKS} %" for n in range(CHUNKS + 1)) + " |")
    print("|---" * (CHUNKS + 2) + "|")
    with serving(["resnet32"]) as api:
        line("requests", over_requests(api, chosen.requests))
    with serving(["resnet18"]) as api:
        line("swaps", over_swaps(api, chosen.swaps))
    print("\n| network | weights, MiB | each further model in service, MiB |\n|---|---|---|")
    for network in MODELS:
        with serving([network]) as api:
            print(
                f"| {network} | {weights(api, network):.1f} | {over_models(api, network, chosen.models):.1f} |",
                flush=True,
            )


def after_start() -> None:
    """A row when the version in service is ready, and one after the first answer."""
    with serving(["resnet32"]) as first, started(first.settings.model_copy(update={"port": first.port + 1})) as api:
        for moment in ("ready", "has answered"):
            resident = api.resident_mebibytes()
            print(
                f"| {moment} | {resident:.0f} | {resident * 2**20 / 1e6:.0f} | {api.own_mebibytes():.0f} |", flush=True
            )
            api.http.post(PATH, content=jpeg(0)).raise_for_status()


def line(name: str, mebibytes: list[float]) -> None:
    """A row of the table."""
    print(f"| {name} | " + " | ".join(f"{one:.0f}" for one in mebibytes) + " |", flush=True)


def over_requests(api: Api, count: int) -> list[float]:
    """At each tenth of so many requests, after a warm-up."""
    rate = Load(api.port, PATH, one_each(), 5, 32).run().rate
    seen, done = [api.own_mebibytes()], 0
    for chunk in range(1, CHUNKS + 1):
        while done < count * chunk / CHUNKS:
            outcome = Load(api.port, PATH, one_each(), count / CHUNKS / rate, 32).run()
            assert not outcome.failed, outcome.statuses
            done += outcome.answered
        seen.append(api.own_mebibytes())
    return seen


def over_swaps(api: Api, count: int) -> list[float]:
    """At each tenth of so many promotions, after the first few."""
    name = "resnet18"
    good = [1, api.publish(name, promote="manual", seed=1)]
    bad = api.publish(name, promote="manual", seed=2)
    files = api.http.get(f"/v1/models/{name}/versions/{bad}").json()["files"]
    damage(api, files[EXECUTABLE]["sha256"])
    seen = []
    for number in range(-8, count):
        if number >= 0 and number % (count // CHUNKS) == 0:
            seen.append(api.own_mebibytes())
        fails = number % 4 == 3
        wanted = bad if fails else good[number % 2]
        promoted = api.http.put(f"/v1/models/{name}/current", json={"version": wanted})
        assert promoted.status_code == (409 if fails else 200), promoted.text
        answer = api.http.post(f"/v1/models/{name}/predictions", content=jpeg(number % 16)).raise_for_status().json()
        assert (answer["version"] != bad) if fails else (answer["version"] == wanted)
    time.sleep(1)
    return [*seen, api.own_mebibytes()]


def over_models(api: Api, network: str, count: int) -> float:
    """What each of so many models takes that are asked for one after another, all of one network."""
    before = 0.0
    for number in range(FIRST + count):
        name = f"{network}-{number}"
        api.teach(name, network=network, seed=number)
        api.http.post(f"/v1/models/{name}/predictions", content=jpeg(0)).raise_for_status()
        if number == FIRST - 1:
            before = api.own_mebibytes()
    return (api.own_mebibytes() - before) / count


def weights(api: Api, name: str) -> float:
    """MiB of a version's weights in its file."""
    files = api.http.get(f"/v1/models/{name}/versions/1").raise_for_status().json()["files"]
    return float(files[WEIGHTS]["bytes"]) / 2**20


def damage(api: Api, digest: str) -> None:
    """Turn one bit of a stored blob."""
    path = Path(api.settings.blobs) / digest[:2] / digest
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


if __name__ == "__main__":
    main()
