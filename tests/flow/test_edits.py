"""Edits the whole way: classes dropped and merged without training, and taught further."""

import pytest

from api.client.client import Client, IncrementFailed
from api.client.connection import ClientError
from tests.flow.conftest import Grower
from tests.flow.test_way import eventually
from tests.patterns import unseen

pytestmark = pytest.mark.flow


def shares(client: Client, model: str, label: str, version: int) -> dict[str, float]:
    """Probabilities of an unseen picture of a class, by label."""
    (ranked,) = client.predict(model, unseen(label, 1), version=version, top_k=20)["predictions"]
    return {one["label"]: one["probability"] for one in ranked}


def test_classes_are_dropped_and_merged_without_training_and_taught_further(client: Client, grower: Grower) -> None:
    name = grower.name
    grower.learn("anise", "basil", "chive")
    grower.learn("dill", "fennel")
    queued = client.edit(name, drop=["chive"], merge={"herb": ["basil", "dill"]})
    assert queued["edit"] == {"drop": ["chive"], "merge": [{"labels": ["basil", "dill"], "into": "herb"}]}
    assert queued["batch_id"] is None
    edited = client.wait(queued["id"])
    assert (edited["version"], edited["parent"], edited["promoted"]) == (3, 2, True)
    assert "training" not in edited["seconds"]
    version = client.version(name, 3)
    assert version["tasks"] == [["anise", "herb"], ["fennel"]]
    assert version["edit"] == queued["edit"]

    for label in ("anise", "basil", "dill", "fennel"):
        before, after = shares(client, name, label, 2), shares(client, name, label, 3)
        left = 1 - before["chive"]
        assert after["herb"] == pytest.approx((before["basil"] + before["dill"]) / left, abs=1e-3)
        assert after["anise"] == pytest.approx(before["anise"] / left, abs=1e-3)

    metrics, old = client.version_metrics(name, 3), client.version_metrics(name, 2)
    support = {label: one["support"] for label, one in old["tag"]["per_class"].items()}
    found = {label: one["support"] for label, one in metrics["tag"]["per_class"].items()}
    assert found == {"anise": support["anise"], "herb": support["basil"] + support["dill"], "fennel": support["fennel"]}
    history = client.metrics(name)
    assert [len(row) for row in history["tag"]["matrix"]] == [1, 2, 2]
    kept = [image["label"] for image in client.images(name, label="herb", exemplar_of=3)]
    assert len(kept) == 10  # as many as of any class, of both in turn
    assert abs(kept.count("basil") - kept.count("dill")) <= 1

    further = grower.learn(
        "ginger", "basil", known_classes="rehearse"
    )  # images of a merged class are of the merged one
    assert (further["version"], further["parent"]) == (4, 3)
    assert client.version(name, 4)["tasks"] == [["anise", "herb"], ["fennel"], ["ginger"]]
    assert client.version_metrics(name, 4)["tag"]["per_class"]["herb"]["support"] == found["herb"]
    assert [len(row) for row in client.metrics(name)["tag"]["matrix"]] == [1, 2, 2, 3]
    card = client.card(name, 3)
    assert "without chive; basil, dill merged into herb" in card
    assert "It was edited from version 2." in card
    comparison = client.compare(name, 3, 2)
    assert comparison["together"] is not None
    assert comparison["together"]["images"] == sum(found.values())
    assert client.erase_class(name, "herb") > found["herb"]
    assert list(client.images(name, label="herb")) == []


def test_what_was_dropped_can_be_taught_again_and_taken_back(client: Client, grower: Grower) -> None:
    name = grower.name
    grower.learn("anise", "basil", "chive")
    client.wait(client.edit(name, drop=["basil"])["id"])
    assert client.version(name, 2)["classes"] == ["anise", "chive"]
    assert "basil" not in shares(client, name, "basil", 2)
    client.rollback(name)
    assert eventually(lambda: client.predict(name, unseen("basil", 1))["version"] == 1)
    client.promote(name, 2)
    again = grower.learn("basil", "dill")
    assert client.version(name, again["version"] or 0)["tasks"] == [["anise", "chive"], ["basil", "dill"]]


def test_a_queued_edit_whose_classes_are_gone_fails_with_the_reason(client: Client, grower: Grower) -> None:
    name = grower.name
    grower.learn("anise", "basil", "chive", "dill")
    first = client.edit(name, drop=["dill"])
    second = client.edit(name, drop=["dill"])
    assert client.wait(first["id"])["version"] == 2
    with pytest.raises(IncrementFailed, match="there is no class 'dill'"):
        client.wait(second["id"])
    with pytest.raises(ClientError, match="a classifier has at least 2"):
        client.edit(name, drop=["anise", "basil"])


def test_the_same_key_asks_for_one_edit(client: Client, grower: Grower) -> None:
    grower.learn("anise", "basil", "chive")
    queued = [client.edit(grower.name, drop=["chive"], idempotency_key="once")["id"] for _ in "ab"]
    assert queued[0] == queued[1]
    assert client.wait(queued[0])["version"] == 2
    with pytest.raises(ClientError, match="name classes to drop or to merge"):
        client.edit(grower.name)
