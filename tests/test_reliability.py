"""docs/reliability.md names tests that are there and run."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
TABLES = (TESTS.parent / "docs" / "reliability.md").read_text().partition("## Figures")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLES.splitlines()
    if line.startswith("|") and not line.startswith("|---") and not line.endswith("| test |")
]


def skipped(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        "skip" in ast.unparse(decorator) or "xfail" in ast.unparse(decorator) for decorator in function.decorator_list
    )


def functions(file: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test functions that pytest collects from a file."""
    found = ast.parse(file.read_text()).body
    return {
        one.name: one
        for one in found
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_")
    }


def test_there_are_rows_to_look_at():
    assert len(ROWS) > 35


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_promise_names_test_functions_that_run(row: list[str]):
    assert len(row) == 3
    named = re.findall(r"`([\w/]+)::(\w+)`", row[2])
    assert named
    assert re.sub(r"`[\w/]+::\w+`|[,; ]", "", row[2]) == "", "something beside test functions"
    for file, function in named:
        there = functions(TESTS / f"{file}.py")
        assert function in there, f"{file} has no {function}"
        assert not skipped(there[function])
