"""The whole way: images in, versions out, predictions all along."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.client.client import Client
from api.client.connection import ClientError
from tests.flow.conftest import Grower, Service
from tests.patterns import QUICK, SIZE, picture, unseen, write_zip
from trainer.networks.pictures import Form

pytestmark = pytest.mark.flow


def hit_rate(client: Client, model: str, labels: list[str], **options: object) -> float:
    """Share of unseen pictures whose best label is right."""
    hits = [
        ranked[0]["label"] == label
        for label in labels
        for ranked in client.predict(model, unseen(label), **options)["predictions"]  # type: ignore[arg-type]
    ]
    return sum(hits) / len(hits)


def eventually(holds: Callable[[], bool], *, seconds: float = 240.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_new_classes_become_a_version_that_predicts_them(client: Client, grower: Grower) -> None:
    first = grower.learn("anise", "basil")
    assert (first["version"], first["promoted"], first["parent"]) == (1, True, None)
    assert hit_rate(client, grower.name, ["anise", "basil"]) >= 0.9

    second = grower.learn("chive", "dill")
    assert (second["version"], second["promoted"], second["parent"]) == (2, True, 1)
    assert eventually(lambda: client.predict(grower.name, unseen("dill", 1))["version"] == 2)
    assert hit_rate(client, grower.name, ["anise", "basil", "chive", "dill"]) >= 0.7

    versions = list(client.versions(grower.name))
    assert [(v["version"], v["classes"], v["current"], v["head"]) for v in versions] == [
        (1, ["anise", "basil"], False, False),
        (2, ["anise", "basil", "chive", "dill"], True, True),
    ]
    metrics = client.version_metrics(grower.name, 2)
    assert metrics["tag"]["forgetting"] == metrics["tag"]["forgetting_by_task"][0]
    assert metrics["test_images"] == [
        sum(c["support"] for c in list(metrics["tag"]["per_class"].values())[i : i + 2]) for i in (0, 2)
    ]

    record = client.predict(grower.name, unseen("anise", 1), durable=True)
    assert record["id"] is not None
    kept = client.prediction(record["id"])
    assert (kept["version"], kept["predictions"]) == (2, record["predictions"])


def test_promotion_and_rollback_switch_without_a_restart(client: Client, grower: Grower) -> None:
    grower.learn("anise", "basil")
    second = grower.learn("chive", "dill", promote="manual")
    assert (second["promoted"], second["note"]) == (False, "promote=manual")
    assert client.predict(grower.name, unseen("dill", 1))["version"] == 1
    assert client.predict(grower.name, unseen("dill", 1), version=2)["version"] == 2

    assert client.promote(grower.name, 2)["previous"] == 1
    assert eventually(lambda: client.predict(grower.name, unseen("dill", 1))["version"] == 2)
    client.rollback(grower.name)
    assert eventually(lambda: client.predict(grower.name, unseen("dill", 1))["version"] == 1)


def test_a_branch_starts_from_the_version_rolled_back_to(client: Client, grower: Grower) -> None:
    grower.learn("anise", "basil")
    grower.learn("chive", "dill")
    client.promote(grower.name, 1)
    third = grower.learn("fennel", "ginger")
    assert (third["version"], third["parent"]) == (3, 1)
    assert client.version(grower.name, 3)["classes"] == ["anise", "basil", "fennel", "ginger"]
    assert client.metrics(grower.name)["versions"] == [1, 3]
    assert client.metrics(grower.name, version=2)["versions"] == [1, 2]


def test_increments_of_a_model_run_in_order_of_arrival(client: Client, grower: Grower) -> None:
    pushed = [grower.push(*labels)["id"] for labels in (("anise", "basil"), ("chive", "dill"), ("fennel", "ginger"))]
    done = [client.wait(increment) for increment in pushed]
    assert [increment["version"] for increment in done] == [1, 2, 3]
    assert [increment["parent"] for increment in done] == [None, 1, 2]
    with pytest.raises(ClientError) as refused:
        grower.push("ginger", "hyssop")
    assert "'ginger'" in str(refused.value)


def test_known_classes_can_be_rehearsed(client: Client, tmp_path: Path) -> None:
    client.create_model("rehearsing", image_size=SIZE, recipe=QUICK, memory=None)
    client.wait(client.start_increment("rehearsing", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"])
    both = write_zip(tmp_path / "2.zip", ["basil", "chive"])
    with pytest.raises(ClientError, match="basil"):
        client.start_increment("rehearsing", both)
    done = client.wait(client.start_increment("rehearsing", both, known_classes="rehearse")["id"])
    version = client.version("rehearsing", done["version"] or 0)
    assert version["tasks"] == [["anise", "basil"], ["chive"]]
    # Measured on the images its first increment brought, though the second brought the same and more.
    first, second = (client.version_metrics("rehearsing", number) for number in (1, 2))
    assert first["tag"]["per_class"]["basil"]["support"] == second["tag"]["per_class"]["basil"]["support"]


def test_known_classes_alone_make_a_version_with_the_same_classes(
    client: Client, service: Service, grower: Grower, tmp_path: Path
) -> None:
    grower.learn("anise", "basil")
    more = {f"basil/{number}.png": picture("basil", number) for number in range(40, 60)}
    archive = write_zip(tmp_path / "more.zip", [], extra=more)
    with pytest.raises(ClientError, match="basil"):
        client.start_increment(grower.name, archive)
    second = client.wait(client.start_increment(grower.name, archive, known_classes="rehearse")["id"])
    assert (second["version"], second["promoted"], second["parent"]) == (2, True, 1)
    assert client.version(grower.name, 2)["tasks"] == [["anise", "basil"]]
    assert eventually(lambda: client.predict(grower.name, unseen("basil", 1))["version"] == 2)
    assert hit_rate(client, grower.name, ["anise", "basil"]) >= 0.8
    told = [client.version_metrics(grower.name, number) for number in (1, 2)]
    assert told[0]["test_images"] == told[1]["test_images"]
    (before,), (after,) = (one["tag"]["accuracy"] for one in told)
    assert told[1]["tag"]["forgetting_by_task"] == [pytest.approx(before - after)]
    assert told[0]["tag"]["forgetting"] is None
    assert told[1]["imbalance"] is None

    third = grower.learn("chive", "dill")
    assert (third["version"], third["parent"]) == (3, 2)
    version = client.version(grower.name, 3)
    assert (version["tasks"], version["task"]) == ([["anise", "basil"], ["chive", "dill"]], 1)
    last = client.version_metrics(grower.name, 3)["tag"]
    assert last["forgetting_by_task"] == [pytest.approx(max(before, after) - last["accuracy"][0])]
    matrix = client.metrics(grower.name)["tag"]["matrix"]
    assert matrix == [[before], [after], last["accuracy"]]
    assert_each_image_is_on_record(client, grower.name, 3)
    together = client.compare(grower.name, 3, 1)["together"]
    assert together is not None
    assert together["images"] == client.version_metrics(grower.name, 1)["test_images"][0]
    assert httpx.get(f"{service.url}/v1/models/{grower.name}/metrics.png").content.startswith(b"\x89PNG")


def assert_each_image_is_on_record(client: Client, model: str, number: int) -> None:
    """Results of single images add up to the confusion of a version, in both forms."""
    labels = client.version(model, number)["classes"]
    for form in ("tag", "taw"):
        found = Counter((one["label"], one["predicted"]) for one in client.evaluations(model, number, form=form))
        document = client.version_metrics(model, number)["tag" if form == "tag" else "taw"]
        confusion = {(labels[true], labels[predicted]): count for true, predicted, count in document["confusion"]}
        assert found == confusion
    stored = {one["id"] for one in client.images(model, split="test")}
    assert {one["image_id"] for one in client.evaluations(model, number)} <= stored


def test_a_batch_collected_piecemeal_becomes_an_increment(client: Client, grower: Grower, tmp_path: Path) -> None:
    batch = client.create_batch(grower.name)
    for label in ("anise", "basil"):
        files = []
        for number, data in enumerate(unseen(label, 12)):
            files.append(tmp_path / f"{label}-{number}.png")
            files[-1].write_bytes(data)
        client.add_images(batch["id"], label, files)
    assert [(c["label"], c["train"]) for c in client.batch(batch["id"])["classes"]] == [("anise", 12), ("basil", 12)]
    done = client.wait(client.start_increment(grower.name, batch_id=batch["id"])["id"])
    assert done["version"] == 1
    after = client.batch(batch["id"])
    assert after["status"] == "ingested"
    assert all(count["train"] + count["test"] == 12 and count["test"] >= 1 for count in after["classes"])


def test_one_bad_file_is_reported_by_name_and_the_rest_is_used(client: Client, grower: Grower, tmp_path: Path) -> None:
    bad = {"anise/broken.png": unseen("anise", 1)[0][:60], "basil/really-a.jpg": b"%PDF-1.7 not a photograph"}
    archive = write_zip(tmp_path / "mixed.zip", ["anise", "basil"], extra=bad)
    done = client.wait(client.start_increment(grower.name, archive)["id"])
    assert {reject["file"] for reject in done["rejects"]} == set(bad)
    assert client.batch(done["batch_id"] or "")["images"] == 60


def test_a_batch_of_mostly_bad_files_fails_with_the_reason(client: Client, grower: Grower, tmp_path: Path) -> None:
    bad = {f"anise/bad-{number}.png": b"no picture" for number in range(20)}
    archive = write_zip(tmp_path / "bad.zip", ["anise", "basil"], images=10, extra=bad)
    increment = client.start_increment(grower.name, archive)["id"]
    final = list(client.events(increment))[-1].data
    assert final["status"] == "failed"
    assert "20 of 40 files" in final["error"]
    assert [attempt["outcome"] for attempt in final["attempts"]] == ["failed"]  # no second try at bad data
    assert list(client.versions(grower.name)) == []


def test_retention_none_forgets_the_images_and_later_metrics_of_them(client: Client, tmp_path: Path) -> None:
    client.create_model("forgetful", image_size=SIZE, recipe=QUICK, memory=None, retention="none")
    for number, labels in enumerate([["anise", "basil"], ["chive", "dill"]]):
        client.wait(client.start_increment("forgetful", write_zip(tmp_path / f"{number}.zip", labels))["id"])
    metrics = client.version_metrics("forgetful", 2)
    assert metrics["test_images"][0] is None
    assert metrics["tag"]["accuracy"][0] is None
    assert metrics["tag"]["average_accuracy"] is None
    assert metrics["tag"]["accuracy"][1] is not None
    assert metrics["tag"]["calibration_error"] is None
    assert {each["precision"] for each in metrics["tag"]["per_class"].values()} == {None}
    assert metrics["imbalance"] is not None
    assert {task["mean_logit_on_others"] for task in metrics["imbalance"]["tasks"]} == {None}
    assert client.version_metrics("forgetful", 1)["tag"]["accuracy"][0] is not None


def test_what_retention_lets_go_is_in_no_blob_any_more(client: Client, service: Service, tmp_path: Path) -> None:
    """Neither the files nor their packed pixels, of images that no other test brings."""
    client.create_model("oblivious", image_size=SIZE, recipe=QUICK, memory=None, retention="none")
    files = {f"{label}/{n}.png": picture(label, 70_000 + n) for label in ("anise", "basil") for n in range(30)}
    archive = write_zip(tmp_path / "1.zip", [], extra=files)
    client.wait(client.start_increment("oblivious", archive)["id"])
    form = Form(channels=3, image_size=SIZE)
    rows = [form.row(data, max_pixels=SIZE * SIZE) for data in files.values()]

    def gone() -> bool:
        blobs = [path.read_bytes() for path in (service.home / "blobs").rglob("*") if path.is_file()]
        return not any(part in data for part in (*files.values(), *rows) for data in blobs)

    assert eventually(gone)  # after the publication


def test_a_grey_model_with_a_torchvision_network_learns(client: Client, service: Service, tmp_path: Path) -> None:
    client.create_model("grey", network="resnet18", channels=1, image_size=32, recipe=QUICK | {"epochs": 2})
    archive = write_zip(tmp_path / "1.zip", ["anise", "chive"])
    done = client.wait(client.start_increment("grey", archive, strategy="finetune")["id"])
    manifest = httpx.get(f"{service.url}/v1/models/grey/versions/{done['version']}/files/version.json").json()
    assert (manifest["network"], manifest["channels"], manifest["strategy"]) == ("resnet18", 1, "finetune")
    assert client.predict("grey", unseen("anise", 2), top_k=1)["version"] == 1
