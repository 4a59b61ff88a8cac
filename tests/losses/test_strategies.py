"""The table of strategies: what each asks for, says of itself, and has an ear for."""

import re
from pathlib import Path
from typing import Any

import pytest

import losses
from losses import strategies
from losses.hyperparameters import HYPER_PARAMETERS
from tests.losses import reference
from tests.losses.minibatches import minibatch

DISTILLING = [name for name in reference.NAMES if name not in reference.BASELINES]
OTHER_VALUES: dict[str, Any] = {
    "label_smoothing": 0.3,
    "distillation_weight": 2.5,
    "temperature": 3.5,
    "task_reduction": "mean",
    "attention_weight": 0.5,
    "margin_weight": 0.5,
    "margin": 0.8,
    "hardest_classes": 1,
}


def test_all_twenty_one_are_listed():
    assert sorted(losses.names()) == sorted(reference.NAMES)
    assert len(losses.names()) == 21


@pytest.mark.parametrize("name", reference.NAMES)
def test_every_strategy_says_what_it_is_and_can_be_built(name):
    strategy = strategies.get(name)
    assert strategy.name == name
    assert strategy.title
    assert strategy.explanation.endswith(".")
    assert strategy.source
    assert losses.objective(name).weights == strategy.weights
    assert set(strategy.defaults) <= set(OTHER_VALUES)


def test_no_two_strategies_are_the_same():
    for said in ("name", "title", "explanation"):
        assert len({getattr(strategy, said) for strategy in strategies.STRATEGIES}) == 21


@pytest.mark.parametrize("form", reference.SOFTMAX_TABLE)
def test_the_weights_are_those_of_the_table(form):
    labels, told = {"classification": 1}, ("separated", "binary", "binary_prediction")
    shared = labels | dict(zip(("joint", *told), reference.SOFTMAX_TABLE[form], strict=True))
    assert strategies.get(f"lwf{form}").weights == shared
    assert strategies.get(f"lwm{form}").weights == shared | {"attention": 1}
    own = labels | dict(zip(("less_forget", *told), reference.LUCIR_TABLE[form], strict=True))
    assert strategies.get(f"lucir{form}").weights == own | {"margin_ranking": 1}


@pytest.mark.parametrize("name", reference.BASELINES)
def test_baselines_weigh_nothing_but_cross_entropy(name):
    assert strategies.get(name).weights == {"classification": 1}


@pytest.mark.parametrize("name", reference.NAMES)
def test_whoever_distils_needs_a_teacher(name):
    assert losses.objective(name).distils is (name in DISTILLING)


@pytest.mark.parametrize("name", reference.NAMES)
def test_lucir_alone_needs_cosines_and_keeps_old_head_rows(name):
    strategy, lucir = strategies.get(name), name.startswith("lucir")
    assert strategy.head == ("cosine" if lucir else None if name in reference.BASELINES else "linear")
    assert strategy.adaptive is strategy.over_all_classes is strategy.old_heads_fixed is lucir
    assert strategy.backbone_fixed is (name == "freeze")
    assert strategy.every_image is (name == "joint")


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("finetune", "CE"),
        ("lwf", "CE + λ·J"),
        ("lwf-s", "CE + λ·ΣKᵢ"),
        ("lwf-sr", "CE + λ·(0.5·J + ΣKᵢ)"),
        ("lwf-br2", "CE + P + λ·(J + ΣBᵢ)"),
        ("lwm-bsr", "CE + λ·(J + ΣKᵢ + 0.5·ΣBᵢ) + γ·Att"),
        ("lucir", "CE + λₜ·F + λₘ·MR"),
        ("lucir-s", "CE + λₜ·0.1·ΣKᵢ + λₘ·MR"),
        ("lucir-bsr", "CE + λₜ·(0.1·ΣKᵢ + 0.5·ΣBᵢ + F) + λₘ·MR"),
    ],
)
def test_a_formula_reads_as_it_is_minimised(name, formula):
    assert strategies.get(name).formula == formula


@pytest.mark.parametrize("name", reference.NAMES)
@pytest.mark.parametrize("hyper", OTHER_VALUES)
def test_a_hyper_parameter_has_an_effect_exactly_where_it_is_listed(name, hyper):
    keywords = minibatch((2, 3, 1, 3), shown="all").tensors()
    before, after = losses.objective(name), losses.objective(name, **{hyper: OTHER_VALUES[hyper]})
    assert (before(**keywords).total != after(**keywords).total) == (hyper in strategies.get(name).hyper)


def test_another_value_is_tried_of_every_hyper_parameter():
    assert set(OTHER_VALUES) == set(HYPER_PARAMETERS)


def test_an_unknown_strategy_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match=r"no strategy 'lfw'; known are finetune, .*lwf.*lucir-bsr"):
        losses.objective("lfw")


def test_the_guide_has_every_strategy_with_the_formula_of_its_row():
    guide = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (CE[^|]*?) \|", guide, re.MULTILINE))
    assert told == {name: strategies.get(name).formula for name in DISTILLING}
