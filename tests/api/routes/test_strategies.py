"""Strategies over HTTP: what there is to choose from, and the schema of each recipe."""

from losses import strategies
from trainer import recipes


def test_every_strategy_is_explained_with_its_source_and_its_recipe(http):
    page = http.get("/v1/strategies").json()
    assert page["next_cursor"] is None
    assert [item["name"] for item in page["items"]] == list(strategies.names())
    for item in page["items"]:
        assert len(item["title"]) > 3
        assert len(item["explanation"]) > 40
        assert item["source"]
        assert item["formula"].startswith("CE")
        assert item["head"] in {None, "linear", "cosine"}


def test_a_recipe_schema_has_range_default_and_description_of_every_field(http):
    by_name = {item["name"]: item["recipe_schema"]["properties"] for item in http.get("/v1/strategies").json()["items"]}
    epochs = by_name["lwf"]["epochs"]
    assert (epochs["minimum"], epochs["maximum"], epochs["default"]) == (1, 2000, recipes.resolve("lwf").epochs)
    assert all(field["description"] for field in by_name["lwf"].values())
    assert "temperature" in by_name["lwf"]
    assert "temperature" not in by_name["finetune"]
