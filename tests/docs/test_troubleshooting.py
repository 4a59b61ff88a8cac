"""Every message that the page about troubleshooting quotes is one that the code can give."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### “(.+)”$", PAGE, re.MULTILINE)
GAP = "…"


def words(node):
    """The text of a string in the code, with a gap where a value goes; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part) or GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{words(node.left) or GAP}{words(node.right) or GAP}"
    return None


@pytest.fixture(scope="module")
def messages():
    paths = [path for part in ("api", "losses", "storage", "trainer") for path in (ROOT / part).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [text for node in nodes if id(node) not in docstrings and (text := words(node)) is not None]


def test_there_are_messages():
    assert len(QUOTED) >= 20
    assert len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_in_the_code(quoted, messages):
    assert any(quoted in message for message in messages)
