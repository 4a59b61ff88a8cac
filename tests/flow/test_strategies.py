"""Every family of strategies over the whole way, and which images a version keeps."""

import json
import re
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from api.client.client import Client
from api.client.connection import ClientError, Problem
from losses import names
from storage.database.engine import Database
from storage.history import models
from storage.material import exemplars
from storage.settings import Settings
from tests.flow.conftest import Grower, Service
from tests.patterns import QUICK, SIZE, unseen
from trainer.networks import load_version

pytestmark = pytest.mark.flow


def fresh(client: Client, folder: Path, **options: object) -> Grower:
    """A model of a test's own."""
    name = f"model-{uuid4().hex[:8]}"
    client.create_model(name, **({"image_size": SIZE, "recipe": QUICK} | options))  # type: ignore[arg-type]
    return Grower(client, folder, name)


def kept(service: Service, model: str, version: int) -> dict[str, list[str]]:
    """File names of a version's exemplars by label, most wanted first."""
    database = Database(Settings(home=service.home).database)
    with database.read() as connection:
        found = exemplars.of_version(connection, model_id=models.get(connection, model).id, version=version)
    by_label: dict[str, list[str]] = {}
    for image in found:
        by_label.setdefault(image.label, []).append(image.filename)
    return by_label


@pytest.mark.parametrize("strategy", ["lwf-bsr", "lwm-s", "lucir-bsr"])
def test_a_family_learns_two_tasks_and_its_files_predict_what_the_service_does(
    client: Client, service: Service, tmp_path: Path, strategy: str
) -> None:
    grower = fresh(client, tmp_path, strategy=strategy, memory={"per_class": 10})
    grower.learn("anise", "basil")
    done = grower.learn("chive", "dill")
    assert done["strategy"] == strategy
    metrics = client.version_metrics(grower.name, 2)
    assert metrics["taw"]["average_accuracy"] > 0.8
    folder = tmp_path / "files"
    client.download(grower.name, 2, folder)
    manifest = json.loads((folder / "version.json").read_text())
    assert manifest["head"] == ("cosine" if strategy.startswith("lucir") else "linear")
    loaded = load_version(folder)
    images = [image for label in ("anise", "dill") for image in unseen(label, 3)]
    served = client.predict(grower.name, images, top_k=4)
    for row, ranked in zip(loaded.probabilities(images), served["predictions"], strict=True):
        assert {each["label"]: each["probability"] for each in ranked} == pytest.approx(
            dict(zip(loaded.labels, row.tolist(), strict=True)), abs=1e-5
        )


def test_the_first_version_fixes_the_kind_of_heads(client: Client, grower: Grower) -> None:
    grower.learn("anise", "basil", recipe={"epochs": 1})
    with pytest.raises(Problem, match="'lucir-s' needs a network with cosine heads") as refused:
        grower.push("chive", "dill", strategy="lucir-s")
    assert refused.value.status == 422
    with pytest.raises(ClientError, match="'lucir' needs a network with cosine heads"):
        client.change_model(grower.name, strategy="lucir")


def test_two_kinds_of_heads_waiting_in_line_end_in_one_version_and_one_reason(client: Client, tmp_path: Path) -> None:
    grower = fresh(client, tmp_path, recipe=QUICK | {"epochs": 1})
    first = grower.push("anise", "basil")
    with pytest.raises(Problem, match="would give the model cosine heads for good, and its default strategy 'lwf-bsr'"):
        grower.push("chive", "dill", strategy="lucir")
    client.change_model(grower.name, strategy="lucir")  # there is no version yet that would say no
    second = grower.push("chive", "dill")
    assert client.wait(first["id"])["version"] == 1
    final = list(client.events(second["id"]))[-1].data
    assert final["status"] == "failed"
    assert "'lucir' needs a network with cosine heads" in final["error"]
    with pytest.raises(Problem, match="'lucir' needs a network with cosine heads"):
        client.retry(second["id"])
    client.change_model(grower.name, memory={"per_class": 5})  # what does not touch the strategy is changed as before
    client.change_model(grower.name, strategy="lwf")


def test_joint_training_learns_a_single_class_beside_all_earlier_images(client: Client, tmp_path: Path) -> None:
    grower = fresh(client, tmp_path, memory=None, recipe=QUICK | {"epochs": 10})
    grower.learn("anise", "basil")
    grower.learn("chive", "dill", strategy="finetune")
    with pytest.raises(ClientError, match="'fennel' alone cannot be learned"):
        grower.push("fennel")
    done = grower.learn("fennel", strategy="joint")
    metrics = client.version_metrics(grower.name, done["version"] or 0)
    assert min(metrics["tag"]["accuracy"]) > 0.8  # of every task, though nothing was kept as exemplars


def test_joint_training_is_refused_where_old_images_are_not_kept(client: Client, tmp_path: Path) -> None:
    grower = fresh(client, tmp_path, retention="exemplars")
    for refuse in (
        lambda: grower.push("anise", "basil", strategy="joint"),
        lambda: client.change_model(grower.name, strategy="joint"),
        lambda: client.create_model(f"model-{uuid4().hex[:8]}", strategy="joint", retention="none"),
    ):
        with pytest.raises(Problem, match=r"'joint' learns from every image .* retention") as refused:
            refuse()
        assert refused.value.status == 422


def test_joint_training_says_whose_images_are_gone(client: Client, tmp_path: Path) -> None:
    grower = fresh(client, tmp_path, retention="exemplars", memory={"per_class": 2})
    grower.learn("anise", "basil")
    client.change_model(grower.name, retention="all")  # too late for these, but for two of each
    final = list(client.events(grower.push("chive", "dill", strategy="joint")["id"]))[-1].data
    assert final["status"] == "failed"
    assert re.search(r"not all are left \(anise 2 of 2\d, basil 2 of 2\d\)", final["error"])


def test_a_memory_given_later_reaches_back_to_the_images_that_are_still_stored(
    client: Client, service: Service, tmp_path: Path
) -> None:
    grower = fresh(client, tmp_path, memory=None)
    grower.learn("anise", "basil")
    assert kept(service, grower.name, 1) == {}
    client.change_model(grower.name, memory={"per_class": 4})
    done = grower.learn("chive")  # a single class, beside old ones
    assert {label: len(files) for label, files in kept(service, grower.name, 2).items()} == {
        "anise": 4,
        "basil": 4,
        "chive": 4,
    }
    client.change_model(grower.name, memory={"per_class": 6})
    grower.learn("dill", "fennel")
    larger = kept(service, grower.name, 3)
    assert {len(files) for files in larger.values()} == {6}
    assert all(larger[label][:4] == files for label, files in kept(service, grower.name, 2).items())
    assert done["version"] == 2


def test_a_memory_that_can_hold_nothing_is_no_help_to_a_single_class(client: Client, tmp_path: Path) -> None:
    grower = fresh(client, tmp_path, memory=None, retention="none")
    grower.learn("anise", "basil")
    client.change_model(grower.name, memory={"per_class": 4})
    final = list(client.events(grower.push("chive")["id"]))[-1].data
    assert final["status"] == "failed"
    assert "'chive' alone cannot be learned" in final["error"]
    assert "no training image of an old class is left" in final["error"]


def test_old_images_that_only_exemplars_kept_are_rehearsed(client: Client, service: Service, tmp_path: Path) -> None:
    grower = fresh(client, tmp_path, memory={"per_class": 8}, retention="exemplars", recipe=QUICK | {"epochs": 10})
    grower.learn("anise", "basil")
    done = grower.learn("chive", "dill")
    assert {len(files) for files in kept(service, grower.name, 2).values()} == {8}
    assert min(client.version_metrics(grower.name, done["version"] or 0)["tag"]["accuracy"]) > 0.7


def test_a_fixed_total_shrinks_the_share_of_each_class_from_the_least_wanted_end(
    client: Client, service: Service, tmp_path: Path
) -> None:
    grower = fresh(client, tmp_path, memory={"total": 12})
    grower.learn("anise", "basil")
    first = kept(service, grower.name, 1)
    assert {label: len(files) for label, files in first.items()} == {"anise": 6, "basil": 6}
    grower.learn("chive", "dill")
    second = kept(service, grower.name, 2)
    assert Counter({label: len(files) for label, files in second.items()}) == dict.fromkeys(second, 3)
    assert {label: second[label] for label in first} == {label: files[:3] for label, files in first.items()}
    assert kept(service, grower.name, 1) == first  # its own set stays


def test_herding_and_chance_keep_other_images_and_each_the_same_again(
    client: Client, service: Service, tmp_path: Path
) -> None:
    sets = {}
    for selection in ("herding", "random"):
        for repetition in range(2):
            grower = fresh(client, tmp_path, memory={"per_class": 5}, recipe=QUICK | {"exemplar_selection": selection})
            grower.learn("anise", "basil")
            sets[selection, repetition] = kept(service, grower.name, 1)
    for selection in ("herding", "random"):
        assert sets[selection, 0] == sets[selection, 1]
    assert sets["herding", 0] != sets["random", 0]


def test_all_strategies_are_on_offer(client: Client) -> None:
    offered = {strategy["name"]: strategy for strategy in client.strategies()}
    assert tuple(offered) == names()
    assert len(offered) == 21
    assert offered["lwf-bsr"]["formula"] == "CE + λ·(J + ΣKᵢ + 0.5·ΣBᵢ)"
    assert {name for name, each in offered.items() if each["head"] == "cosine"} == {
        name for name in names() if name.startswith("lucir")
    }
