"""The table of strategies."""

import pytest

import losses
from losses import strategies
from losses.objectives import Objective


def test_every_strategy_can_be_listed_found_and_built():
    assert losses.names()[:2] == ("finetune", "lwf")
    for name in losses.names():
        strategy = strategies.get(name)
        assert strategy.name == name
        assert strategy.title
        assert strategy.explanation.endswith(".")
        assert strategy.source
        assert losses.objective(name).weights == strategy.weights


def test_hyper_parameters_of_a_strategy_are_those_of_its_objective():
    for name in losses.names():
        assert set(strategies.get(name).hyper) <= set(Objective.__dataclass_fields__) - {"weights"}


def test_only_distilling_strategies_need_a_teacher():
    assert strategies.get("lwf").weights.distils
    assert not strategies.get("finetune").weights.distils


def test_an_unknown_strategy_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="no strategy 'lfw'; known are finetune, lwf"):
        losses.objective("lfw")
