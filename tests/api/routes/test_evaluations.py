"""Results of each evaluation image over HTTP, and two versions side by side."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]
from typer.testing import CliRunner

from api.client.client import Client
from api.commands.commandline import app
from storage.domain import new_id
from tests.api.worlds import picture, problem
from trainer.process.evaluations import evaluations_of

LABELS = (["cat", "dog"], ["größe"])
IMAGES = [new_id() for _ in range(60)]  # 20 of each class


def logits_of(predicted, classes):
    """Logits of which these classes are the best ones."""
    logits = np.zeros((len(predicted), classes))
    logits[np.arange(len(predicted)), predicted] = 2.0
    logits[:, 0] += 0.5
    return logits


@pytest.fixture(scope="module")
def judged(shared_world):
    """A model of two versions: of the 40 images of both, 3 got better and 5 worse; and one image that is stored."""
    world, name = shared_world, shared_world.model()
    batch = world.http.post(f"/v1/models/{name}/batches").json()["id"]
    files = [("images", ("7.png", picture(7), "image/png"))]
    added = world.http.post(f"/v1/batches/{batch}/images", params={"label": "cat"}, files=files).json()
    ids = [added["images"][0]["id"], *IMAGES[1:]]
    first, second = np.repeat([0, 1], 20), np.repeat([0, 1, 2], 20)
    said_first = first.copy()
    said_first[[0, 1, 20]] = [1, 1, 0]  # wrong at first …
    said_second = second.copy()
    said_second[[5, 6, 7, 30, 31]] = [2, 2, 1, 2, 0]  # … and wrong at last
    said_second[45:50] = 0
    for labels, predicted, targets, sizes in (
        (LABELS[0], said_first, first, [2]),
        (LABELS[1], said_second, second, [2, 1]),
    ):
        logits = logits_of(predicted, sum(sizes))
        results = evaluations_of(logits, targets=targets, ids=ids[: len(targets)], task_sizes=sizes)
        world.publish(world.claim(world.increment(name, *labels)["id"]), labels, results=results)
    return name, ids


def evaluations(http, name, number, **query):
    """A page of results."""
    return http.get(f"/v1/models/{name}/versions/{number}/evaluations", params=query)


def test_every_image_is_listed_with_what_was_evaluations_of_it(http, judged):
    name, ids = judged
    first = evaluations(http, name, 2, limit=25).json()
    assert (first["recorded"], first["images"]) == (True, 60)
    items, cursor = first["items"], first["next_cursor"]
    while cursor is not None:
        page = evaluations(http, name, 2, limit=25, cursor=cursor).json()
        items, cursor = items + page["items"], page["next_cursor"]
    assert [one["image_id"] for one in items] == ids
    assert [one["filename"] for one in items[:2]] == ["7.png", None]  # the others are not stored
    one = items[5]
    assert (one["label"], one["predicted"], one["correct"]) == ("cat", "größe", False)
    assert [ranked["label"] for ranked in one["top"]] == ["größe", "cat", "dog"]
    assert sum(ranked["probability"] for ranked in one["top"]) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ({"label": "cat", "correct": "false"}, [5, 6, 7]),
        ({"predicted": "größe", "correct": "false"}, [5, 6, 30]),
        ({"predicted": "gro\u0308ße", "label": "dog"}, [30]),
        ({"label": "größe", "predicted": "cat"}, list(range(45, 50))),
        ({"label": "cat", "correct": "false", "form": "taw"}, [7]),  # "größe" is of another task
        ({"label": "größe", "correct": "false", "form": "taw"}, []),
        ({"label": "cat", "predicted": "dog", "form": "taw"}, [7]),
        ({"label": "dog", "correct": "true"}, [row for row in range(20, 40) if row not in {30, 31}]),
    ],
)
def test_filters_leave_what_was_asked_for(http, judged, query, rows):
    name, ids = judged
    found = evaluations(http, name, 2, **query).json()
    assert [one["image_id"] for one in found["items"]] == [ids[row] for row in rows]
    assert found["images"] == len(rows)


def test_what_cannot_be_asked_is_refused(http, world, judged):
    name, _ = judged
    assert "no class 'emu'" in problem(evaluations(http, name, 1, label="emu"), 422, "invalid")["detail"]
    problem(evaluations(http, name, 1, form="both"), 422, "request-invalid")
    problem(evaluations(http, name, 1, cursor="W10"), 422, "invalid")
    problem(evaluations(http, name, 9), 404, "version-not-found")
    path = f"/v1/models/{name}/versions/1/comparison"
    assert "first version" in problem(http.get(path), 422, "invalid")["detail"]
    problem(http.get(path, params={"with": 0}), 422, "request-invalid")
    assert http.get(path.replace("/1/", "/2/")).json()["other"] == 1  # the parent
    problem(http.get(path, params={"with": 9}), 404, "version-not-found")


def compared(http, name, number, other, **query):
    """A comparison."""
    answer = http.get(f"/v1/models/{name}/versions/{number}/comparison", params={"with": other} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_two_versions_are_compared_on_the_images_of_both(http, judged):
    name, ids = judged
    found = compared(http, name, 2, 1)
    together = found["together"]
    assert (together["images"], together["better"], together["worse"]) == (40, 3, 5)
    assert (together["version"]["hits"], together["other"]["hits"]) == (35, 37)
    assert together["p_value"] == pytest.approx(stats.binomtest(3, 8).pvalue)
    exact = stats.binomtest(35, 40).proportion_ci(method="exact")
    assert [together["version"][end] for end in ("low", "high")] == pytest.approx([exact.low, exact.high])
    assert (found["only_version"], found["only_other"]) == (["größe"], [])
    assert (found["new_classes"]["hits"], found["new_classes"]["share"]) == (15, 0.75)
    cat, dog = found["classes"]
    assert (cat["label"], cat["images"], cat["better"], cat["worse"]) == ("cat", 20, 2, 3)
    assert (cat["got_better"], cat["got_worse"]) == (ids[:2], ids[5:8])
    assert (dog["got_better"], dog["got_worse"]) == ([ids[20]], ids[30:32])
    assert found["sentence"] == (
        "Of the 40 images that both were evaluated on, version 2 has 35 right and version 1 37: 3 got better and 5 "
        "worse, which chance explains (p = 0.73). Most lost: cat (-1 of 20), dog (-1 of 20)."
    )
    assert found["task_aware"]["version"]["hits"] > together["version"]["hits"]


def test_the_other_way_round_is_the_mirror(http, judged):
    name, _ = judged
    one, other = compared(http, name, 2, 1), compared(http, name, 1, 2)
    assert (other["together"]["better"], other["together"]["worse"]) == (5, 3)
    assert other["together"]["version"] == one["together"]["other"]
    assert (other["only_version"], other["only_other"]) == ([], ["größe"])
    assert other["new_classes"] is None
    assert "have the same images right: 35 of 60" not in compared(http, name, 2, 2)["sentence"]
    assert compared(http, name, 1, 1)["sentence"] == "Versions 1 and 1 have the same images right: 37 of 40."


def test_what_an_earlier_release_did_not_keep_is_results(http, world):
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu")
    found = evaluations(http, name, 1).json()
    assert (found["recorded"], found["items"], found["images"]) == (False, [], 0)
    assert found["note"].startswith("Version 1 was made by a release that kept no results of single images")
    told = compared(http, name, 2, 1)
    assert (told["recorded"], told["together"], told["classes"]) == (False, None, [])
    assert told["sentence"].startswith("Version 2 was made by a release that kept no results of single images")
    assert told["only_version"] == ["emu"]


def test_serving_needs_no_evaluations(http, world, judged, monkeypatch):
    name, _ = judged
    version = http.get(f"/v1/models/{name}/versions/1").json()
    assert "evaluations.npz" in version["files"]
    manifest = http.get(f"/v1/models/{name}/versions/1/files/version.json").json()
    assert "evaluations.npz" not in manifest["files"]
    assert http.post(f"/v1/models/{name}/predictions?version=1", content=picture(1)).status_code == 200


def test_the_client_and_the_command_line_tell_it(world, judged):
    name, ids = judged
    url = str(world.http.base_url)
    with Client(url) as client:
        wrong = list(client.evaluations(name, 2, correct=False, label="cat"))
        assert [one["image_id"] for one in wrong] == ids[5:8]
        assert client.compare(name, 2, 1, form="taw")["form"] == "taw"
    done = CliRunner().invoke(app, ["compare", name, "2", "1", "--url", url])
    assert done.exit_code == 0, done.output
    assert "3 got better and 5" in done.output
    assert "Classes that version 1 does not know: 75.0 % right (50.9 % to 91.3 %)." in done.output
