"""Recipes: what applies, in which order, and how a wrong one is answered."""

import json

import pytest
from pydantic import ValidationError

import losses
from storage.errors import RecipeInvalid, UnknownStrategy
from trainer.recipes import PRESETS, Recipe, resolve, schema


def test_nothing_asked_for_is_the_recommended_recipe():
    assert resolve("lwf") == Recipe()
    assert resolve("lwf").model_dump().items() >= PRESETS["recommended"].items()


def test_the_increments_values_win_over_the_models():
    recipe = resolve("lwf", {"epochs": 7, "seed": 3}, {"epochs": 9})
    assert (recipe.epochs, recipe.seed) == (9, 3)


def test_a_preset_fills_in_before_its_own_layers_values():
    recipe = resolve("lwf", {"preset": "quick", "epochs": 3})
    assert recipe.epochs == 3
    assert recipe.minibatch == PRESETS["quick"]["minibatch"]
    assert recipe.preset == "quick"


def test_a_later_preset_takes_back_what_earlier_layers_set_but_not_the_seed():
    recipe = resolve("lwf", {"preset": "quick", "seed": 5, "temperature": 4.0}, {"preset": "recommended"})
    assert recipe == Recipe(seed=5)


def test_every_preset_decides_the_same_fields_within_their_ranges():
    assert all(set(values) == set(PRESETS["recommended"]) for values in PRESETS.values())
    for preset in PRESETS:
        assert resolve("lwf", {"preset": preset}).preset == preset


def test_a_complete_recipe_resolves_to_itself():
    recipe = resolve("lwf", {"preset": "quick", "epochs": 3, "gradient_clip": None, "initial_weights": "resnet18.pth"})
    assert resolve("lwf", json.loads(recipe.model_dump_json())) == recipe


def test_whole_numbers_stand_for_real_ones():
    assert resolve("lwf", {"learning_rate": 1}).learning_rate == 1.0


@pytest.mark.parametrize(
    ("field", "value", "permitted"),
    [
        ("epochs", 0, "a whole number at least 1 and at most 2,000"),
        ("epochs", 2001, "a whole number at least 1 and at most 2,000"),
        ("epochs", 2.5, "a whole number at least 1 and at most 2,000"),
        ("epochs", "3", "a whole number at least 1 and at most 2,000"),
        ("epochs", True, "a whole number at least 1 and at most 2,000"),
        ("minibatch", 1, "a whole number at least 2 and at most 4,096"),
        ("learning_rate", 0, "a number above 0 and at most 10"),
        ("learning_rate", float("nan"), "a number above 0 and at most 10"),
        ("learning_rate", float("inf"), "a number above 0 and at most 10"),
        ("momentum", 1.0, "a number at least 0 and below 1"),
        ("momentum", None, "a number at least 0 and below 1"),
        ("gradient_clip", 0, "null or a number above 0"),
        ("schedule", "step", "one of constant, cosine, one-cycle"),
        ("augmentation", ["crop"], "one of auto, none, crop, crop-flip"),
        ("task_reduction", "max", "one of sum, mean"),
        ("preset", "slow", "one of recommended, quick"),
        ("preset", ["quick"], "one of recommended, quick"),
        ("seed", -1, "a whole number at least 0 and below 4,294,967,296"),
    ],
)
def test_a_value_out_of_range_is_named_with_field_and_range(field, value, permitted):
    with pytest.raises(RecipeInvalid) as raised:
        resolve("lwf", {field: value})
    assert raised.value.detail == f"recipe: {field} = {value!r}: permitted is {permitted}"
    assert raised.value.extra["faults"] == [{"field": field, "value": repr(value), "permitted": permitted}]


@pytest.mark.parametrize(
    "name",
    [
        "../weights.pth",
        "/etc/weights.pth",
        "a/b.pth",
        "a\\b.pth",
        ".pth",
        "..pth",
        "weights",
        "weights.bin",
        "w.pth\n",
        "w\0.pth",
        "",
    ],
)
def test_initial_weights_are_a_plain_file_name(name):
    with pytest.raises(RecipeInvalid, match=r"null or a plain file name ending in \.safetensors, \.pth or \.pt"):
        resolve("lwf", {"initial_weights": name})


@pytest.mark.parametrize("name", ["resnet18-f37072fd.pth", "my_weights.v2.safetensors", "w.pt", None])
def test_usual_weight_files_are_accepted(name):
    assert resolve("lwf", {"initial_weights": name}).initial_weights == name


def test_an_unknown_field_is_answered_with_the_known_ones():
    with pytest.raises(
        RecipeInvalid, match=r"recipe: epoch = 3: permitted is no such field, only preset, epochs, "
    ) as raised:
        resolve("lwf", {"epoch": 3})
    assert raised.value.extra["faults"][0]["field"] == "epoch"


def test_all_faults_are_told_at_once_and_survive_json():
    with pytest.raises(RecipeInvalid) as raised:
        resolve("lwf", {"epochs": 0, "momentum": float("nan"), "x": {"deep": [1] * 1000}})
    assert {fault["field"] for fault in raised.value.extra["faults"]} == {"epochs", "momentum", "x"}
    assert len(json.dumps(dict(raised.value.extra), allow_nan=False)) < 1500


def test_an_unknown_strategy_is_answered_with_the_known_ones():
    with pytest.raises(UnknownStrategy, match="no strategy 'lfw'; known are finetune, lwf") as raised:
        resolve("lfw")
    assert raised.value.extra["known"] == list(losses.names())
    with pytest.raises(UnknownStrategy):
        schema("lfw")


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError):
        Recipe().epochs = 3  # type: ignore[misc]


def test_the_schema_holds_what_the_strategy_uses():
    lwf, finetune = schema("lwf")["properties"], schema("finetune")["properties"]
    assert set(lwf) == set(Recipe.model_fields)
    assert set(lwf) - set(finetune) == {"distillation_weight", "temperature", "task_reduction"}
    assert schema("lwf")["additionalProperties"] is False


def test_every_field_is_described_with_its_default():
    for name, field in schema("lwf")["properties"].items():
        assert field["description"].endswith("."), name
        assert "default" in field, name


@pytest.mark.parametrize("name", losses.names())
def test_a_recipe_gives_the_objective_its_hyper_parameters(name):
    recipe = resolve(
        name, {"distillation_weight": 3.0, "temperature": 4.0, "task_reduction": "mean", "label_smoothing": 0.1}
    )
    objective = losses.objective(name, **recipe.objective(name))
    assert objective.label_smoothing == 0.1
    if name == "lwf":
        assert (objective.distillation_weight, objective.temperature, objective.task_reduction) == (3.0, 4.0, "mean")


def test_recipes_and_objectives_agree_on_defaults():
    assert losses.objective("lwf", **Recipe().objective("lwf")) == losses.objective("lwf")
