"""The guides to extending are followed literally, in a copy of the tree: every change is made, every command run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))
PARTS = ("accrete", "api", "losses", "storage", "tests", "trainer", "docs", "pyproject.toml")
BLOCK = re.compile(r"^```(diff|bash|python)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def copy(tmp_path):
    """A copy of the packages and their tests."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, tmp_path / part)
    return tmp_path


def run(command, folder, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_guide_works_as_it_is_written(page, copy):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert {kind for kind, _, _ in blocks} >= {"diff", "bash"}
    for kind, path, text in blocks:
        if kind == "diff":
            run(["git", "apply", "--verbose", "-"], copy, input=text)
        elif kind == "python":
            (copy / path).write_text(text, encoding="utf-8")
        else:
            run(
                ["bash", "-euxo", "pipefail", "-c", text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")], copy
            )
