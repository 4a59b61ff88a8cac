"""The table of the objective's terms, and that formula, guide and objective say what it says."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest

from losses import computation, objective, strategies
from losses.hyperparameters import HYPER_PARAMETERS, HyperParameters
from losses.minibatch import Minibatch
from losses.terms import TERMS, Term
from tests.losses import reference

GUIDE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")


def rows_of_guide(heading: str) -> list[list[str]]:
    """The cells of the table that begins with a heading."""
    _, _, after = GUIDE.partition(f"\n| {heading} |")
    lines = after.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_term_is_computed_by_the_function_of_its_name_and_there_is_no_other():
    own = {
        name
        for name, found in inspect.getmembers(computation, inspect.isfunction)
        if found.__module__ == computation.__name__ and not name.startswith("_")
    }
    assert own == {term.name for term in TERMS}


def test_no_two_terms_share_a_name_or_a_symbol():
    assert len({term.name for term in TERMS}) == len({term.symbol for term in TERMS}) == len(TERMS) == 8


def test_every_hyper_parameter_is_of_a_term_and_the_other_way_round():
    assert {name for term in TERMS for name in term.hyper} == set(HYPER_PARAMETERS)


def test_terms_ask_for_arguments_that_a_minibatch_has():
    assert {argument for term in TERMS for argument in term.asks_for} <= set(Minibatch.__dataclass_fields__)


@pytest.mark.parametrize("wrong", [{"hyper": ("heat",)}, {"factor": "heat"}], ids=str)
def test_a_row_that_names_no_hyper_parameter_is_refused(wrong):
    with pytest.raises(ValueError, match="'new': no hyper-parameter 'heat'"):
        Term(name="new", symbol="N", **wrong)


@pytest.mark.parametrize("wrong", [{"weights": {"jiont": 1.0}}, {"defaults": {"heat": 1.0}}], ids=str)
def test_a_strategy_that_names_what_the_tables_do_not_have_is_refused(wrong):
    with pytest.raises(ValueError, match=r"'new': no (term|hyper-parameter) '(jiont|heat)'"):
        strategies.Strategy(name="new", title="New", explanation="New.", source="none", **wrong)


def given(name: str, value: Any) -> Any:
    return getattr(HyperParameters(**{name: value}), name)


@pytest.mark.parametrize("name", HYPER_PARAMETERS)
def test_the_ends_of_a_range_are_taken_or_refused_as_the_table_says(name):
    parameter = HYPER_PARAMETERS[name]
    if parameter.choices:
        assert [given(name, choice) for choice in parameter.choices] == list(parameter.choices)
    for bound, limit in parameter.bounds.items():
        if bound in {"ge", "le"}:
            assert given(name, limit) == limit
        beyond = math.nextafter(limit, -math.inf if bound in {"ge", "gt"} else math.inf)
        for value in {beyond} | ({limit} if bound in {"gt", "lt"} else set()):
            with pytest.raises(ValueError, match=f"^{name} is {re.escape(parameter.permitted)}, got"):
                objective("lwf", **{name: value})


def test_a_hyper_parameter_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="heat"):
        objective("lwf", heat=2.0)


def test_a_term_whose_factor_is_nothing_asks_for_nothing():
    assert objective("lwm").asks_for("student_attention")
    assert not objective("lwm", attention_weight=0.0).asks_for("student_attention")
    assert objective("lwm", attention_weight=0.0).distils
    assert not objective("lwm", attention_weight=0.0, distillation_weight=0.0).distils
    assert objective("lucir", distillation_weight=0.0).asks_for("student_scale")


def test_the_guide_lists_the_terms_of_the_table_in_its_order():
    told = [(symbol, name, hyper) for symbol, name, hyper, _ in rows_of_guide("symbol | name")]
    expected = [(term.symbol, f"`{term.name}`", ", ".join(f"`{name}`" for name in term.hyper)) for term in TERMS]
    assert told == expected


def test_the_guide_lists_the_hyper_parameters_of_the_table_in_its_order():
    told = [(symbol, name, default, range_) for symbol, name, default, range_, _ in rows_of_guide("symbol | field")]
    assert told == [(p.symbol, f"`{p.name}`", f"{p.default}", p.permitted) for p in HYPER_PARAMETERS.values()]


@pytest.mark.parametrize("name", reference.NAMES)
def test_a_formula_has_the_symbols_of_the_terms_with_a_weight_and_no_others(name):
    strategy = strategies.get(name)
    symbols = [re.sub(r"^[0-9.]+$", "", part) for part in re.split(r"[·()+ ]+", strategy.formula)]
    weighted = {term.symbol for term in TERMS if strategy.weights.get(term.name)}
    assert {symbol for symbol in symbols if symbol in {term.symbol for term in TERMS}} == weighted
