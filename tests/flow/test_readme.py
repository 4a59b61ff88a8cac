"""The README's walk-through, line by line, against a running service."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.conftest import Service

pytestmark = pytest.mark.flow

ROOT = Path(__file__).parents[2]


def test_every_line_of_the_walk_through_runs(service: Service, tmp_path: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    assert len(lines) >= 20
    script = (
        "\n".join(lines).replace("localhost:8000", service.url).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    )
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"ACCRETE_URL": service.url},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (tmp_path / "metrics.png").read_bytes().startswith(b"\x89PNG")
    assert '"version":1,"previous":2' in done.stdout.replace(" ", "")


def test_every_path_of_the_map_exists() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(linked) > 20
    assert [path for path in linked if not (ROOT / path).exists()] == []
