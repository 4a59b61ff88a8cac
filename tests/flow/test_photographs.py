"""Real photographs, each archive POSTed as it is and learned at half its size.

Skipped where they are not at hand, as none may be kept here.
"""

import os
import zipfile
from pathlib import Path

import pytest

from api.client.client import Client

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(900)]

DATASETS = Path(os.environ.get("ACCRETE_TEST_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))
ARCHIVES = [DATASETS / "tiny-imagenet-100-32px" / f"task-{task:02d}.zip" for task in range(3)]


@pytest.mark.skipif(not ARCHIVES[0].exists(), reason=f"no photographs in {DATASETS} (set ACCRETE_TEST_DATASETS)")
def test_three_archives_of_photographs_become_three_versions_that_predict_well_above_chance(client: Client) -> None:
    client.create_model("photographs", image_size=16, recipe={"epochs": 3, "minibatch": 32})
    for task, archive in enumerate(ARCHIVES, start=1):
        done = client.wait(client.start_increment("photographs", archive)["id"])
        assert (done["version"], done["promoted"]) == (task, True)
        assert all("same image as" in reject["reason"] for reject in done["rejects"])  # the collection repeats a few

    metrics = client.metrics("photographs")
    assert [len(task) for task in metrics["tasks"]] == [10, 10, 10]
    for form in ("tag", "taw"):
        assert [len(row) for row in metrics[form]["matrix"]] == [1, 2, 3]
        assert metrics[form]["forgetting"][0] is None
        assert None not in metrics[form]["forgetting"][1:]
    for number in (1, 2, 3):
        measured = client.version_metrics("photographs", number)
        assert all(count is not None and 495 <= count <= 500 for count in measured["test_images"])
        assert len(measured["tag"]["per_class"]) == 10 * number
        assert measured["tag"]["average_accuracy"] > 2 / (10 * number)  # twice chance, after three epochs
        assert min(measured["taw"]["accuracy"]) > 0.15  # chance is 0.1

    hits, asked = 0, 0
    for archive in ARCHIVES:
        for label, image in held_out(archive, each=4):
            ranked = client.predict("photographs", [image], version=3)["predictions"][0]
            hits, asked = hits + (ranked[0]["label"] == label), asked + 1
    assert asked == 120
    assert hits / asked > 2 / 30


def held_out(archive: Path, *, each: int) -> list[tuple[str, bytes]]:
    """Some test images of each class, which no training saw."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.startswith("test/") and name.endswith(".jpg"))
        by_label: dict[str, list[str]] = {}
        for name in names:
            by_label.setdefault(name.split("/")[1], []).append(name)
        return [(label, opened.read(name)) for label, members in by_label.items() for name in members[:each]]
