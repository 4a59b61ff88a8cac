"""docs/reliability.md names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"


def test_every_row_names_tests_that_exist() -> None:
    promises = PAGE.read_text(encoding="utf-8").partition("## Figures")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`([a-z]+/test_\w+|test_\w+)`", row)
        assert named, row
        assert [name for name in named if not (TESTS / f"{name}.py").exists()] == []
