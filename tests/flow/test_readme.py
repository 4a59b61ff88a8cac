"""The README's walk-through, line by line, against a running service."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.conftest import Service

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1800)]  # some minutes, but on a machine that has much to do

ROOT = Path(__file__).parents[2]


def walk_through(url: str, folder: Path, **environment: str) -> str:
    """Run every line of it; what it prints."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    assert len(lines) >= 20
    script = "\n".join(lines).replace("localhost:8000", url).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"ACCRETE_URL": url} | environment,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (folder / "metrics.png").read_bytes().startswith(b"\x89PNG")
    assert '"version":1,"previous":2' in done.stdout.replace(" ", "")
    return done.stdout


def test_every_line_of_the_walk_through_runs(service: Service, tmp_path: Path) -> None:
    walk_through(service.url, tmp_path)


def test_every_line_of_the_walk_through_runs_with_a_key_to_train(tmp_path: Path) -> None:
    """Curl reads the key from a file of its own, the command line from the environment; no line is another one."""
    (tmp_path / "admin.key").write_text("0123456789abcdef" * 4)
    settings = {"ACCRETE_HOME": str(tmp_path / "home"), "ACCRETE_ADMIN_KEY_FILE": str(tmp_path / "admin.key")}
    service = Service(tmp_path / "home", settings)
    service.start()
    try:
        command = [
            str(Path(sys.executable).with_name("accrete")),
            "keys",
            "create",
            "walker",
            "--scope",
            "train",
            "--json",
        ]
        made = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
        key = json.loads(made.stdout)["key"]
        (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {key}"\n')
        walk_through(service.url, tmp_path, CURL_HOME=str(tmp_path), ACCRETE_API_KEY=key)
    finally:
        assert service.stop() == 0


def test_every_path_of_the_map_exists() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(linked) > 20
    assert [path for path in linked if not (ROOT / path).exists()] == []
