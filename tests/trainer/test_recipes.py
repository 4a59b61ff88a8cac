"""Recipes: what applies, in which order, and how a wrong one is answered."""

import json
from typing import get_args

import pytest
from pydantic import ValidationError

import losses
from losses.hyperparameters import HYPER_PARAMETERS
from losses.strategies import HeadKind, get
from storage.errors import RecipeInvalid, StrategyUnfit, UnknownStrategy
from trainer.networks.limits import HEAD_KINDS
from trainer.recipes import PRESETS, Recipe, check_fit, resolve, schema


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


def test_few_images_get_steps_enough_unless_epochs_are_asked_for_or_the_schedule_is_the_published_one():
    assert resolve("lwf").least_steps == resolve("lwf", {"preset": "quick"}).least_steps == 40
    assert resolve("lwf", {"epochs": 10}).least_steps == 0
    assert resolve("lwf", {"epochs": 10, "least_steps": 25}).least_steps == 25
    assert resolve("lwf", {"epochs": 3}, {"preset": "recommended"}).least_steps == 40
    assert resolve("lwf", {"preset": "paper"}).least_steps == 0


def test_classes_are_balanced_by_default_but_not_in_the_published_schedule():
    assert resolve("lwf-bsr").sampling == "auto"
    assert resolve("lwf-bsr", {"preset": "paper"}).sampling == "uniform"


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
        ("schedule", "step", "one of constant, cosine, one-cycle, plateau"),
        ("augmentation", ["crop"], "one of auto, none, crop, crop-flip"),
        ("task_reduction", "max", "one of sum, mean"),
        ("sampling", "fair", "one of auto, uniform, class-balanced"),
        ("least_steps", -1, "a whole number at least 0 and at most 100,000"),
        ("exemplar_selection", "best", "one of herding, random"),
        ("align_weights", 1, "true or false"),
        ("rate_divisor", 1, "a number above 1 and at most 1,000"),
        ("validation_share", 0.6, "a number above 0 and at most 0.5"),
        ("hardest_classes", 0, "a whole number at least 1 and at most 1,000"),
        ("preset", "slow", "one of recommended, quick, paper"),
        ("preset", ["quick"], "one of recommended, quick, paper"),
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
    with pytest.raises(
        UnknownStrategy, match="no strategy 'lfw'; known are finetune, freeze, joint, lwf, lwf-s, "
    ) as raised:
        resolve("lfw")
    assert raised.value.extra["known"] == list(losses.names())
    with pytest.raises(UnknownStrategy):
        schema("lfw")


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError):
        Recipe().epochs = 3  # type: ignore[misc]


def test_the_schema_holds_what_the_strategy_uses_with_its_own_defaults():
    shown = {name: schema(name)["properties"] for name in losses.names()}
    assert set().union(*shown.values()) == set(Recipe.model_fields)
    common = set(shown["finetune"])
    assert common < set(Recipe.model_fields)
    assert set(shown["lwf"]) - common == {"distillation_weight", "temperature"}
    assert set(shown["lwf-bsr"]) - set(shown["lwf"]) == {"task_reduction"}
    assert set(shown["lwm"]) - set(shown["lwf"]) == {"attention_weight"}
    assert common - set(shown["lucir"]) == {"align_weights"}
    assert set(shown["lucir"]) - common == {"distillation_weight", "margin", "margin_weight", "hardest_classes"}
    assert (shown["lwf"]["distillation_weight"]["default"], shown["lucir"]["distillation_weight"]["default"]) == (1, 5)
    assert schema("lwf")["additionalProperties"] is False


JSON_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
JSON_TYPES = {float: "number", int: "integer"}


@pytest.mark.parametrize("name", losses.names())
def test_the_schema_says_of_the_objective_what_its_table_says(name):
    shown, own = schema(name)["properties"], get(name)
    assert [field for field in shown if field in HYPER_PARAMETERS] == list(own.hyper)
    for field in own.hyper:
        parameter = HYPER_PARAMETERS[field]
        kind = {"enum": list(parameter.choices), "type": "string"} if parameter.choices else {}
        assert shown[field] == {
            "title": shown[field]["title"],
            "type": JSON_TYPES.get(parameter.type),
            "description": parameter.description,
            "default": own.defaults.get(field, parameter.default),
            **{JSON_BOUNDS[bound]: limit for bound, limit in parameter.bounds.items()},
            **kind,
        }


def test_a_strategy_brings_its_own_hyper_parameters_and_a_layer_can_change_them():
    assert (resolve("lwm").distillation_weight, resolve("lwm").temperature) == (1.0, 2.0)
    assert (resolve("lucir").distillation_weight, resolve("lucir").temperature) == (5.0, 1.0)
    assert resolve("lucir-s", {"preset": "quick"}).distillation_weight == 5.0
    assert resolve("lucir-s", {"distillation_weight": 2.0}, {"epochs": 3}).distillation_weight == 2.0
    assert resolve("lucir-s", {"distillation_weight": 2.0}, {"preset": "paper"}).distillation_weight == 5.0


def test_the_paper_s_preset_is_the_published_schedule():
    recipe = resolve("lwf-bsr", {"preset": "paper"})
    published = {
        "learning_rate": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "minibatch": 64,
        "epochs": 200,
        "schedule": "plateau",
        "patience": 5,
        "rate_divisor": 3.0,
        "lowest_rate": 1e-4,
        "validation_share": 0.1,
    }
    assert {name: getattr(recipe, name) for name in published} == published


def test_every_field_is_described_with_its_default():
    for name, field in schema("lwf")["properties"].items():
        assert field["description"].endswith("."), name
        assert "default" in field, name


@pytest.mark.parametrize("name", losses.names())
def test_a_recipe_gives_the_objective_its_hyper_parameters(name):
    asked = {
        "label_smoothing": 0.1,
        "distillation_weight": 3.0,
        "temperature": 4.0,
        "task_reduction": "mean",
        "attention_weight": 5.0,
        "margin_weight": 6.0,
        "margin": 0.7,
        "hardest_classes": 8,
    }
    objective = losses.objective(name, **resolve(name, asked).objective(name))
    used = [field for field in asked if field in schema(name)["properties"]]
    assert "label_smoothing" in used
    assert [getattr(objective.hyper, field) for field in used] == [asked[field] for field in used]


@pytest.mark.parametrize("name", losses.names())
def test_recipes_and_objectives_agree_on_defaults(name):
    assert losses.objective(name, **resolve(name).objective(name)) == losses.objective(name)


# Fit


def test_strategies_and_networks_mean_the_same_by_kinds_of_heads():
    assert set(get_args(HeadKind)) == set(HEAD_KINDS)
    assert {get(name).head for name in losses.names()} - {None} == set(HEAD_KINDS)


def fit(strategy: str, *, network: str = "resnet32", head_kind: HeadKind | None = None, **recipe: object) -> None:
    chosen = resolve(strategy, recipe)
    check_fit(strategy, chosen, network=network, channels=3, image_size=32, head_kind=head_kind)


def test_a_strategy_fits_the_heads_it_needs():
    for strategy in losses.names():
        fit(strategy)
    for strategy in ("finetune", "freeze", "joint"):
        fit(strategy, head_kind="linear")
        fit(strategy, head_kind="cosine")
    fit("lwf", head_kind="linear")
    fit("lucir", head_kind="cosine")
    with pytest.raises(
        StrategyUnfit, match=r"'lucir-bsr' needs a network with cosine heads, and .* fixed linear heads"
    ):
        fit("lucir-bsr", head_kind="linear")
    with pytest.raises(StrategyUnfit, match=r"'lwm' needs a network with linear heads, and .* fixed cosine heads"):
        fit("lwm", head_kind="cosine")


@pytest.mark.parametrize("strategy", ["lwm-s", "lucir"])
def test_a_network_whose_inside_is_not_known_is_refused_by_name_and_reason(strategy):
    fit("lwf-s", network="vgg11")
    with pytest.raises(StrategyUnfit, match=rf"'{strategy}' cannot train this network: .*'vgg11'.*ResNet"):
        fit(strategy, network="vgg11")


def test_weights_are_aligned_in_linear_heads_only():
    fit("finetune", align_weights=True)
    fit("lwf", align_weights=True, head_kind="linear")
    with pytest.raises(RecipeInvalid, match=r"align_weights = True: permitted is false"):
        fit("lucir", align_weights=True)
    with pytest.raises(RecipeInvalid, match=r"align_weights = True: permitted is false"):
        fit("finetune", align_weights=True, head_kind="cosine")
